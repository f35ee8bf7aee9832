import { constants, type Stats } from 'node:fs'
import { open, readdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { openFault } from './device-fault.ts'
import { deviceNumber } from './device-number.ts'

/** Where the kernel tells what it knows of its disks. */
interface KernelPaths {
  readonly proc: string
  readonly sys: string
}

/** The kernel's word on what uses a disk. */
interface Use {
  /** What the disk is used for, such as `is mounted read-write on /mnt`. */
  readonly what: string
  readonly writes: boolean
}

/**
 * Refuses a disk that something else may write to. That is so if the device, a partition of it, a loop device over it,
 * or something stacked on one of these (device mapper, RAID) is mounted read-write, is swap space, or is held by the
 * kernel for another reason. A disk that is mounted read-only is allowed. Errors: DISK_MOUNTED naming the use,
 * DISK_MISSING, DISK_UNREADABLE.
 */
export async function assertNotMounted(path: string, options: { force: boolean; kernel?: KernelPaths }): Promise<void> {
  if (options.force) return
  const kernel = options.kernel ?? { proc: '/proc', sys: '/sys' }
  const facts = await stat(path).catch((error: unknown) => {
    throw openFault(path, error, { writable: false })
  })
  const disk = identityOf(facts)
  const stack = new Map<string, string>()
  const bases = disk.device === undefined ? await loopsOver(disk, kernel) : [disk.device]
  for (const base of bases) await addStackOver(base, kernel, stack)
  let readOnly = false
  for (const use of [...(await mountsOf(stack, kernel)), ...(await swapsOn(disk, stack, kernel))]) {
    if (use.writes) throw new MeshError('DISK_MOUNTED', `${path} ${use.what}`, { detail: { path } })
    readOnly = true
  }
  if (readOnly) return
  for (const base of bases) {
    const node = disk.device === undefined ? `/dev/${stack.get(base)}` : path
    if (!(await isClaimed(node))) continue
    const above = [...stack.values()].slice(1)
    const by = above.length === 0 ? 'the kernel (a RAID, a volume, or a mount elsewhere)' : above.join(', ')
    throw new MeshError('DISK_MOUNTED', `${path} is in use by ${by}`, { detail: { path } })
  }
}

/** Two paths lead to the same disk if the number of the device, or the inode of the file, is the same. */
interface Identity {
  readonly device?: string
  readonly inode?: string
}

function identityOf(facts: Stats): Identity {
  return facts.isBlockDevice() ? { device: deviceNumber(facts.rdev) } : { inode: `${facts.dev} ${facts.ino}` }
}

/** The identity of what is at a path; undefined if nothing is there any more, or nothing that we may see. */
async function identityAt(path: string): Promise<Identity | undefined> {
  const facts = await stat(path).catch(absent)
  return facts === undefined ? undefined : identityOf(facts)
}

function sameDisk(a: Identity, b: Identity | undefined): boolean {
  return b !== undefined && a.device === b.device && a.inode === b.inode
}

/** Adds a device and everything whose content lies on it: number → name. */
async function addStackOver(number: string, kernel: KernelPaths, stack: Map<string, string>): Promise<void> {
  if (stack.has(number)) return
  const folder = await realpath(`${kernel.sys}/dev/block/${number}`).catch(absent)
  if (folder === undefined) return
  const name = basename(folder)
  stack.set(number, name)
  // A partition is a folder inside the folder of its disk, and is named after it. Holders are links to the devices
  // stacked on this one.
  const inside = await list(folder)
  const partitions = inside.filter((entry) => entry.startsWith(name)).map((entry) => `${folder}/${entry}`)
  const holders = (await list(`${folder}/holders`)).map((entry) => `${folder}/holders/${entry}`)
  for (const above of [...partitions, ...holders]) {
    const text = await readFile(`${above}/dev`, 'utf8').catch(absent)
    if (text !== undefined) await addStackOver(text.trim(), kernel, stack)
  }
  for (const loop of await loopsOver({ device: number }, kernel)) await addStackOver(loop, kernel, stack)
}

/** Numbers of the loop devices whose backing file is this file or device. */
async function loopsOver(disk: Identity, kernel: KernelPaths): Promise<string[]> {
  const loops: string[] = []
  for (const name of await list(`${kernel.sys}/block`)) {
    if (!name.startsWith('loop')) continue
    const folder = `${kernel.sys}/block/${name}`
    const backing = await readFile(`${folder}/loop/backing_file`, 'utf8').catch(absent)
    if (backing === undefined || !sameDisk(disk, await identityAt(backing.replace(/\n$/, '')))) continue
    loops.push((await readFile(`${folder}/dev`, 'utf8')).trim())
  }
  return loops
}

/** Mounts of these devices, from mountinfo (proc_pid_mountinfo(5)): `id parent major:minor root point … - type source options`. */
async function mountsOf(stack: ReadonlyMap<string, string>, kernel: KernelPaths): Promise<Use[]> {
  const uses: Use[] = []
  const text = await readFile(`${kernel.proc}/self/mountinfo`, 'utf8')
  for (const line of text.split('\n')) {
    const [mount, fileSystem] = line.split(' - ')
    const [, , number, , point] = mount!.split(' ')
    const [, source, options] = fileSystem?.split(' ') ?? []
    if (number === undefined || point === undefined || source === undefined || options === undefined) continue
    // Btrfs mounts have device numbers of their own, so their source is looked at.
    const device =
      stack.has(number) || !source.startsWith('/dev/') ? undefined : await identityAt(unescapeOctal(source))
    if (!stack.has(number) && !(device?.device !== undefined && stack.has(device.device))) continue
    // The options of the file system count, not those of the mount: a read-only view may belong to a file system that
    // is mounted read-write elsewhere.
    const writes = options.split(',').includes('rw')
    uses.push({ what: `is mounted ${writes ? 'read-write' : 'read-only'} on ${unescapeOctal(point)}`, writes })
  }
  return uses
}

/** Swap space on these devices, or in the file itself. */
async function swapsOn(disk: Identity, stack: ReadonlyMap<string, string>, kernel: KernelPaths): Promise<Use[]> {
  const uses: Use[] = []
  // A kernel without swap has no such file.
  const text = (await readFile(`${kernel.proc}/swaps`, 'utf8').catch(absent)) ?? ''
  for (const line of text.split('\n').slice(1)) {
    const source = line.split(/\s/)[0]
    if (source === undefined || source === '') continue
    const swap = await identityAt(unescapeOctal(source))
    const onStack = swap?.device !== undefined && stack.has(swap.device)
    if (onStack || sameDisk(disk, swap)) uses.push({ what: 'is in use as swap space', writes: true })
  }
  return uses
}

/**
 * Whether the kernel holds a block device exclusively: mounted (in any mount namespace), part of a RAID or a volume,
 * swap. For a block device O_EXCL without O_CREAT asks just that (open(2)).
 */
async function isClaimed(node: string): Promise<boolean> {
  try {
    const handle = await open(node, constants.O_RDONLY | constants.O_EXCL)
    await handle.close()
    return false
  } catch (error) {
    // Any other failure is reported by whoever opens the disk.
    return errnoOf(error) === 'EBUSY'
  }
}

async function list(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(absent)) ?? []
}

/** Devices come and go while this code looks, so what the kernel does not show counts as not there. */
function absent(): undefined {
  return undefined
}

/** The kernel writes blanks in paths as `\040`. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
