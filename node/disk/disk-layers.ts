import type { Stats } from 'node:fs'
import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { deviceNumber } from './device-number.ts'
import { MAX_STACKED_DEVICES } from './limits.ts'
import { unlessLimit } from './system-limit.ts'

/** Where the kernel tells what it knows of its disks and processes. */
export interface KernelPaths {
  readonly proc: string
  readonly sys: string
}

/** Two paths lead to the same disk if the number of the device, or the inode of the file, is the same. */
interface DiskIdentity {
  /** `8:3` */
  readonly device?: string
  /** `dev ino` of a file. */
  readonly inode?: string
}

/** What shares its bytes with a disk. */
export interface DiskLayers {
  readonly disk: DiskIdentity
  /** The disk if it is a device, and every device whose content lies on it: number → name, such as `8:3` → `sda3`. */
  readonly above: ReadonlyMap<string, string>
  /** What the content of the disk lies on: the disk of a partition, the file or device of a loop device, the parts of a RAID or volume. */
  readonly below: readonly DiskIdentity[]
}

/** Identity of what a stat describes. */
export function identityOf(facts: Pick<Stats, 'isBlockDevice' | 'rdev' | 'dev' | 'ino'>): DiskIdentity {
  return facts.isBlockDevice() ? { device: deviceNumber(facts.rdev) } : { inode: `${facts.dev} ${facts.ino}` }
}

/** Identity of what is at a path; undefined if nothing is there any more, or nothing that we may see. */
export async function identityAt(path: string): Promise<DiskIdentity | undefined> {
  const facts = await stat(path).catch(absent)
  return facts === undefined ? undefined : identityOf(facts)
}

function sameIdentity(a: DiskIdentity, b: DiskIdentity | undefined): boolean {
  return b !== undefined && a.device === b.device && a.inode === b.inode
}

/** Whether a device or file is the disk, lies on it, or is what it lies on. */
export function sharesBytes({ disk, above, below }: DiskLayers, other: DiskIdentity | undefined): boolean {
  if (other === undefined) return false
  if (other.device !== undefined && above.has(other.device)) return true
  return sameIdentity(disk, other) || below.some((one) => sameIdentity(one, other))
}

/**
 * Follows what the kernel shows of a disk in both directions: partitions, holders (device mapper, RAID) and loop devices over it;
 * slaves and backing files below it. A loop device beside it, over the same bytes of the same file, counts as above.
 * Format: Documentation/ABI/stable/sysfs-block and testing/sysfs-block-loop of Linux.
 */
export async function layersOf(disk: DiskIdentity, kernel: KernelPaths): Promise<DiskLayers> {
  const above = new Map<string, string>()
  const bases = disk.device === undefined ? await loopsOver(disk, kernel) : [disk.device]
  for (const base of bases) await addAbove(base, kernel, above)
  const below: DiskIdentity[] = []
  if (disk.device !== undefined) await addBelow(disk.device, kernel, { above, below, whole: true }, 0)
  return { disk, above, below }
}

/** Adds a device and everything whose content lies on it. */
async function addAbove(number: string, kernel: KernelPaths, above: Map<string, string>): Promise<void> {
  if (above.has(number)) return
  const folder = await folderOf(number, kernel)
  if (folder === undefined) return
  const name = basename(folder)
  above.set(number, name)
  // A partition is a folder inside the folder of its disk, and is named after it. Holders are links to the devices
  // stacked on this one.
  const inside = await list(folder)
  const partitions = inside.filter((entry) => entry.startsWith(name)).map((entry) => `${folder}/${entry}`)
  const holders = (await list(`${folder}/holders`)).map((entry) => `${folder}/holders/${entry}`)
  for (const one of [...partitions, ...holders]) {
    const text = await readFile(`${one}/dev`, 'utf8').catch(absent)
    if (text !== undefined) await addAbove(text.trim(), kernel, above)
  }
  for (const loop of await loopsOver({ device: number }, kernel)) await addAbove(loop, kernel, above)
}

/** Adds what a device lies on. `whole`: the disk has all the bytes of this device, and is not only one of its partitions or volumes. */
async function addBelow(
  number: string,
  kernel: KernelPaths,
  layers: { readonly above: Map<string, string>; readonly below: DiskIdentity[]; readonly whole: boolean },
  depth: number,
): Promise<void> {
  const folder = await folderOf(number, kernel)
  if (folder === undefined || depth > MAX_STACKED_DEVICES) return
  const parts = (await list(`${folder}/slaves`)).map((entry) => `${folder}/slaves/${entry}`)
  if ((await readFile(`${folder}/partition`, 'utf8').catch(absent)) !== undefined) parts.push(`${folder}/..`)
  for (const part of parts) {
    const text = await readFile(`${part}/dev`, 'utf8').catch(absent)
    if (text === undefined) continue
    layers.below.push({ device: text.trim() })
    await addBelow(text.trim(), kernel, { ...layers, whole: false }, depth + 1)
  }
  const window = await loopWindow(folder)
  const backing = window === undefined ? undefined : await identityAt(window.file)
  if (window === undefined || backing === undefined) return
  layers.below.push(backing)
  const beside = layers.whole ? await loopsOver(backing, kernel, window) : []
  for (const loop of beside) await addAbove(loop, kernel, layers.above)
  if (backing.device !== undefined) await addBelow(backing.device, kernel, layers, depth + 1)
}

/** The part of a file that a loop device shows. */
interface LoopWindow {
  readonly file: string
  /** Bytes. */
  readonly start: number
  readonly end: number
}

async function loopWindow(folder: string): Promise<LoopWindow | undefined> {
  const read = (name: string): Promise<string | undefined> => readFile(`${folder}/loop/${name}`, 'utf8').catch(absent)
  const file = await read('backing_file')
  if (file === undefined) return undefined
  const [start, limit] = [Number((await read('offset')) ?? 0), Number((await read('sizelimit')) ?? 0)]
  return { file: file.replace(/\n$/, ''), start, end: limit === 0 ? Number.POSITIVE_INFINITY : start + limit }
}

/** Numbers of the loop devices whose backing file is this file or device, and whose part of it overlaps `part`. */
async function loopsOver(
  disk: DiskIdentity,
  kernel: KernelPaths,
  part: Pick<LoopWindow, 'start' | 'end'> = { start: 0, end: Number.POSITIVE_INFINITY },
): Promise<string[]> {
  const loops: string[] = []
  for (const name of await list(`${kernel.sys}/block`)) {
    if (!name.startsWith('loop')) continue
    const folder = `${kernel.sys}/block/${name}`
    const window = await loopWindow(folder)
    if (window === undefined || !sameIdentity(disk, await identityAt(window.file))) continue
    if (window.start >= part.end || window.end <= part.start) continue
    const number = await readFile(`${folder}/dev`, 'utf8').catch(absent)
    if (number !== undefined) loops.push(number.trim())
  }
  return loops
}

async function folderOf(number: string, kernel: KernelPaths): Promise<string | undefined> {
  return realpath(`${kernel.sys}/dev/block/${number}`).catch(absent)
}

async function list(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(absent)) ?? []
}

/** Devices come and go while this code looks, so what the kernel does not show counts as not there. */
const absent = unlessLimit(undefined)
