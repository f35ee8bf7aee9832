import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { open, readFile, stat } from 'node:fs/promises'
import { type DiskLayers, identityOf, type KernelPaths, sharesBytes } from './disk-layers.ts'
import { processName } from './process-name.ts'
import { attempt, unlessLimit } from './system-limit.ts'

/** What a caller wants to do with a disk: change it, or read it while nobody changes it. */
export type DiskPurpose = 'write' | 'read'

/**
 * QEMU locks single bytes of an image for what it does with it, and for what it lets nobody else do (open file description locks of
 * fcntl(2)): byte 100 + n means "I do n", byte 200 + n means "nobody else may do n". n = 0 is to read content that does not change,
 * n = 1 is to write. Source: `RAW_LOCK_PERM_BASE`, `RAW_LOCK_SHARED_BASE` and `raw_apply_lock_bytes` in block/file-posix.c and
 * `BLK_PERM_WRITE` in include/block/block-common.h of QEMU.
 */
const QEMU_BYTES: Readonly<Record<DiskPurpose, readonly number[]>> = { write: [101, 201], read: [101, 200] }

/** O_WRONLY and O_RDWR among the flags of a file (open(2)). */
const WRITES = 0o3

/**
 * Which other processes have a disk, or what shares its bytes with it, open for writing, or locked as QEMU does:
 * `qemu-system-x86_64 (process 812) has it open for writing`. A process that has one of the files `ours` open is no other; `byOurs` says
 * that there is one.
 * Processes that cannot be looked at are passed over. Sources: proc_pid_fd(5), proc_pid_fdinfo(5), proc_locks(5).
 */
export async function openersOf(
  path: string,
  layers: DiskLayers,
  options: { readonly to: DiskPurpose; readonly ours: readonly string[]; readonly kernel: KernelPaths },
): Promise<{ readonly others: readonly string[]; readonly byOurs: boolean }> {
  const { to, kernel } = options
  const ours = (await Promise.all(options.ours.map((file) => stat(file).catch(() => undefined)))).flatMap((facts) =>
    facts === undefined ? [] : [identityOf(facts).inode],
  )
  const others: string[] = []
  let byOurs = false
  for (const pid of readdirSync(kernel.proc).filter((name) => /^\d+$/.test(name))) {
    if (Number(pid) === process.pid) continue
    const how = howOpen(`${kernel.proc}/${pid}`, layers, to)
    if (how === undefined) continue
    if (isOurs(`${kernel.proc}/${pid}`, ours)) byOurs = true
    else others.push(`${await processName(pid, kernel.proc)} ${how}`)
  }
  if (others.length > 0) return { others, byOurs }
  // A process of another user or of another container shows its locks, and nothing else.
  const locked = await isLockedByQemu(path, to, kernel)
  if (locked) others.push('a virtual machine (QEMU) has locked it, and its process cannot be seen from here')
  return { others, byOurs }
}

/** How a process has the disk open, if it is in the way. */
function howOpen(folder: string, layers: DiskLayers, to: DiskPurpose): string | undefined {
  for (const fd of namesIn(`${folder}/fd`)) {
    const target = attempt(() => readlinkSync(`${folder}/fd/${fd}`)) ?? ''
    if (!target.startsWith('/')) continue
    const info = attempt(() => readFileSync(`${folder}/fdinfo/${fd}`, 'utf8'))
    if (info === undefined) continue
    const writes = (Number.parseInt(/^flags:\s*(\d+)/m.exec(info)?.[1] ?? '0', 8) & WRITES) !== 0
    const locks = info.split('\n').some((line) => line.startsWith('lock:') && isQemuLock(line, to))
    // A loop device has a cache of its own: who has read it would go on to see the old content.
    const stale = to === 'write' && target.includes('/loop')
    if (!writes && !locks && !stale) continue
    if (!mayBe(target, info, layers)) continue
    const facts = attempt(() => statSync(`${folder}/fd/${fd}`))
    if (facts === undefined || !(facts.isFile() || facts.isBlockDevice())) continue
    const identity = identityOf(facts)
    if (!sharesBytes(layers, identity)) continue
    if (writes) return 'has it open for writing'
    if (locks) return 'has locked it, as a virtual machine does (QEMU)'
    const { device } = identity
    if (device !== undefined && device !== layers.disk.device && layers.above.has(device))
      return `has ${target} open, which shows it`
  }
  return undefined
}

/**
 * Whether a stat is worth while: it may wait for a server that does not answer. A device has its node in /dev; a file has the inode
 * that fdinfo tells (Linux 5.14).
 */
function mayBe(target: string, info: string, { disk, below }: DiskLayers): boolean {
  if (target.includes('/dev/')) return true
  const ino = /^ino:\s*(\d+)/m.exec(info)?.[1]
  return [disk, ...below].some(({ inode }) => inode !== undefined && (ino === undefined || inode.split(' ')[1] === ino))
}

function isOurs(folder: string, ours: readonly (string | undefined)[]): boolean {
  if (ours.length === 0) return false
  return namesIn(`${folder}/fd`).some((fd) => {
    const facts = attempt(() => statSync(`${folder}/fd/${fd}`))
    return facts?.isFile() === true && ours.includes(identityOf(facts).inode)
  })
}

/** Whether a line such as `1: OFDLCK ADVISORY READ -1 fe:00:2147816 100 101` covers a byte that is in the way. */
function isQemuLock(line: string, to: DiskPurpose): boolean {
  const [, first, last] = /OFDLCK .* (\d+) (\d+|EOF)$/.exec(line.trimEnd()) ?? []
  if (first === undefined || last === 'EOF') return false
  return QEMU_BYTES[to].some((byte) => Number(first) <= byte && byte <= Number(last))
}

/** Looks for locks of QEMU in the list of all locks, which names files by the device of their file system and their inode. */
async function isLockedByQemu(path: string, to: DiskPurpose, kernel: KernelPaths): Promise<boolean> {
  const text = await readFile(`${kernel.proc}/locks`, 'utf8').catch(unlessLimit(''))
  const lines = text.split('\n').filter((line) => isQemuLock(line, to))
  if (lines.length === 0) return false
  const name = await lockName(path, kernel)
  return name !== undefined && lines.some((line) => line.includes(` ${name} `))
}

/** `fe:00:2147816`. What stat tells of the device of a file system is not right on btrfs and overlayfs; its mount is. */
async function lockName(path: string, { proc }: KernelPaths): Promise<string | undefined> {
  const file = await open(path).catch(unlessLimit(undefined))
  if (file === undefined) return undefined
  try {
    const mount = /^mnt_id:\s*(\d+)/m.exec(await readFile(`${proc}/self/fdinfo/${file.fd}`, 'utf8'))?.[1]
    const line = (await readFile(`${proc}/self/mountinfo`, 'utf8'))
      .split('\n')
      .find((one) => one.startsWith(`${mount} `))
    const numbers = line?.split(' ')[2]?.split(':').map(Number)
    if (numbers === undefined) return undefined
    const device = numbers.map((number) => number.toString(16).padStart(2, '0')).join(':')
    return `${device}:${(await file.stat()).ino}`
  } catch {
    return undefined
  } finally {
    await file.close()
  }
}

function namesIn(folder: string): string[] {
  return attempt(() => readdirSync(folder)) ?? []
}
