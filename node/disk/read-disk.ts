import { open, readdir, readFile, realpath, stat, statfs } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { openFault, unseenDevice } from './device-fault.ts'
import { deviceNumber } from './device-number.ts'
import type { DiskFactValues, DiskKind, FactName, KnownDisk } from './known-disk.ts'
import { MAX_STACKED_DEVICES } from './limits.ts'
import { partitionUuid } from './partition-table.ts'
import { unlessLimit } from './system-limit.ts'

/** Where the kernel and udev tell what they know. */
export interface DiskPlaces {
  readonly sys: string
  /** udev's database, one file a device: `b8:3`. */
  readonly udev: string
  readonly dev: string
}

/** Those of this computer. */
export const DISK_PLACES: DiskPlaces = { sys: '/sys', udev: '/run/udev/data', dev: '/dev' }

/** File systems whose inode numbers are made up anew at each mount: FAT, exFAT, FUSE. */
const PASSING_INODES = new Set([0x4d44, 0x2011bab0, 0x65735546])

/** What the disk at a path is known by; links are followed. Errors: DISK_MISSING, DISK_UNREADABLE, DISK_NOT_A_DISK, KERNEL_FILES_MISSING. */
export async function readDisk(path: string, places: DiskPlaces = DISK_PLACES): Promise<KnownDisk> {
  const facts = await stat(path).catch((error: unknown) => {
    throw openFault(path, error, { writable: false })
  })
  if (facts.isBlockDevice()) return readBlockDevice(deviceNumber(facts.rdev), places)
  if (!facts.isFile())
    throw new MeshError('DISK_NOT_A_DISK', `${path} is neither a file nor a block device`, { detail: { path } })
  const file = await fileMark(path)
  return { kind: 'file', size: facts.size, facts: { ...(file === undefined ? {} : { file }) } }
}

/** What the kernel's block device `major:minor` is known by. What neither kernel nor udev tells is left out. */
export async function readBlockDevice(number: string, places: DiskPlaces = DISK_PLACES): Promise<KnownDisk> {
  const folder = await folderOf(number, places)
  const udev = await readUdev(number, places)
  const isPartition = (await text(folder, 'partition')) !== undefined
  const disk = isPartition ? dirname(folder) : folder
  const partition = isPartition ? await partitionFacts(folder, udev, places) : nameInUdev(udev)
  const facts = { ...(await hardwareOf(folder, places, MAX_STACKED_DEVICES)), ...partition }
  const sectorBytes = Number(await text(disk, 'queue/logical_block_size'))
  const model = (await text(disk, 'device/model')) ?? udev.get('ID_MODEL')
  const link = stableLink(udev)
  return {
    kind: isPartition ? 'partition' : await kindOf(folder),
    // In sectors of 512 bytes, whatever the device's own are.
    size: Number((await text(folder, 'size')) ?? 0) * 512,
    ...(sectorBytes > 0 ? { sectorBytes } : {}),
    ...(model === undefined ? {} : { model }),
    ...(link === undefined ? {} : { link: `/dev/${link}` }),
    facts,
  }
}

/** `/dev/sda2`: where the kernel's own file system of devices has it. */
export async function deviceNode(folder: string, { dev }: DiskPlaces): Promise<string> {
  const [, name] = /^DEVNAME=(.+)$/m.exec((await text(folder, 'uevent')) ?? '') ?? []
  return join(dev, name ?? basename(folder))
}

/** What tells one file from its copies, also after a reboot; undefined where the file system keeps nothing of the kind. */
export async function fileMark(path: string): Promise<string | undefined> {
  const facts = await stat(path, { bigint: true }).catch(() => undefined)
  if (facts === undefined) return undefined
  const { type } = await statfs(path)
  const inode = PASSING_INODES.has(type) ? '' : String(facts.ino)
  const born = facts.birthtimeNs > 0n ? String(facts.birthtimeNs) : ''
  return inode === '' && born === '' ? undefined : `${inode}.${born}`
}

/** The folder of a device in /sys. Errors: DISK_MISSING, KERNEL_FILES_MISSING, DISK_UNREADABLE. */
async function folderOf(number: string, { sys }: DiskPlaces): Promise<string> {
  const name = `block device ${number}`
  return realpath(`${sys}/dev/block/${number}`).catch((error: unknown) => {
    throw errnoOf(error) === 'ENOENT' ? unseenDevice(name, sys) : openFault(name, error, { writable: false })
  })
}

async function kindOf(folder: string): Promise<DiskKind> {
  const inside = new Set(await list(folder))
  if (inside.has('loop')) return 'loop'
  if (inside.has('dm')) return 'mapped'
  return inside.has('md') ? 'raid' : 'disk'
}

async function partitionFacts(
  folder: string,
  udev: ReadonlyMap<string, string>,
  places: DiskPlaces,
): Promise<DiskFactValues> {
  const partitionNumber = await text(folder, 'partition')
  const named = nameInUdev(udev)
  const partition = named.partition ?? (await uuidInTable(folder, Number(partitionNumber), places))
  return {
    ...(partition === undefined ? {} : { partition }),
    ...(partitionNumber === undefined ? {} : { partitionNumber }),
  }
}

/** udev names partitions so, and also those that device mapper makes. */
function nameInUdev(udev: ReadonlyMap<string, string>): DiskFactValues {
  const partition = udev.get('ID_PART_ENTRY_UUID')?.toLowerCase()
  return partition === undefined ? {} : { partition }
}

/** Without udev, or before it has looked. */
async function uuidInTable(folder: string, number: number, places: DiskPlaces): Promise<string | undefined> {
  const disk = dirname(folder)
  const sectorBytes = Number((await text(disk, 'queue/logical_block_size')) ?? 512)
  try {
    await using handle = await open(await deviceNode(disk, places), 'r')
    const read = async (offset: number, length: number): Promise<Buffer> => {
      const buffer = Buffer.alloc(length)
      await handle.read(buffer, 0, length, offset)
      return buffer
    }
    return await partitionUuid(read, number, sectorBytes)
  } catch (error) {
    // Who may not read the disk does not come to know; whoever opens it reports why.
    return unlessLimit(undefined)(error)
  }
}

/** Facts about what a device stands on in the end: its drive, the file behind a loop device, a RAID as a whole. */
async function hardwareOf(folder: string, places: DiskPlaces, depth: number): Promise<DiskFactValues> {
  if (depth === 0) return {}
  if ((await text(folder, 'partition')) !== undefined) return hardwareOf(dirname(folder), places, depth - 1)
  const inside = new Set(await list(folder))
  const udev = await readUdev((await text(folder, 'dev')) ?? '', places)
  const raid = inside.has('md') ? ((await text(folder, 'md/uuid')) ?? udev.get('MD_UUID')) : undefined
  if (raid !== undefined) return { raid }
  const below = await Promise.all(
    (await list(join(folder, 'slaves'))).map(async (name) =>
      hardwareOf(await realpath(join(folder, 'slaves', name)), places, depth - 1),
    ),
  )
  const mapped = inside.has('dm') ? ((await text(folder, 'dm/uuid')) ?? udev.get('DM_UUID')) : undefined
  if (inside.has('dm')) return { ...together(below), ...(mapped === undefined ? {} : { mapped }) }
  return { ...(await driveFacts(folder, udev)), ...(await backingFacts(folder, places, depth)) }
}

/** A volume over several drives is on all of them. */
function together(below: readonly DiskFactValues[]): DiskFactValues {
  const names = new Set(below.flatMap((facts) => Object.keys(facts) as FactName[]))
  const entries = [...names].map(
    (name) =>
      [
        name,
        below
          .map((facts) => facts[name] ?? '')
          .sort()
          .join(' '),
      ] as const,
  )
  return Object.fromEntries(entries)
}

async function driveFacts(folder: string, udev: ReadonlyMap<string, string>): Promise<DiskFactValues> {
  const found: Record<string, string | undefined> = {
    // NVMe, SCSI and ATA, MMC.
    wwid: (await text(folder, 'wwid')) ?? (await text(folder, 'device/wwid')) ?? (await text(folder, 'device/cid')),
    // Virtio, NVMe and MMC, SCSI and ATA.
    serial: (await text(folder, 'serial')) ?? (await text(folder, 'device/serial')) ?? (await unitSerial(folder)),
    udevWwn: udev.get('ID_WWN_WITH_EXTENSION') ?? udev.get('ID_WWN'),
    udevSerial: udev.get('ID_SERIAL_SHORT'),
    udevName: udev.get('ID_SERIAL'),
  }
  return Object.fromEntries(Object.entries(found).filter((entry): entry is [string, string] => entry[1] !== undefined))
}

/** The SCSI page "unit serial number" (SPC-4, 7.8.15): a header of 4 bytes, then text. */
async function unitSerial(folder: string): Promise<string | undefined> {
  const page = await readFile(join(folder, 'device/vpd_pg80')).catch(unlessLimit(undefined))
  if (page === undefined || page.length < 5) return undefined
  return tidy(page.toString('latin1', 4, 4 + page.readUInt16BE(2)))
}

/** A loop device is the file behind it, or what the device behind it is. */
async function backingFacts(folder: string, places: DiskPlaces, depth: number): Promise<DiskFactValues> {
  const path = await text(folder, 'loop/backing_file')
  if (path === undefined) return {}
  const facts = await stat(path).catch(() => undefined)
  if (facts?.isBlockDevice() === true) {
    const below = await folderOf(deviceNumber(facts.rdev), places).catch(() => undefined)
    return below === undefined ? {} : hardwareOf(below, places, depth - 1)
  }
  const file = await fileMark(path)
  const offset = (await text(folder, 'loop/offset')) ?? '0'
  return file === undefined ? {} : { file: offset === '0' ? file : `${file}+${offset}` }
}

/** A path by which udev makes the device known at every boot. */
function stableLink(udev: ReadonlyMap<string, string>): string | undefined {
  const links = (udev.get('S:') ?? '').split('\n')
  return ['disk/by-id/', 'disk/by-partuuid/']
    .map((start) => links.filter((link) => link.startsWith(start)).sort()[0])
    .find((link) => link !== undefined)
}

/** What udev's database says of a device: its properties, and its links under the name `S:`, one a line. */
async function readUdev(number: string, { udev }: DiskPlaces): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>()
  const lines = (await readFile(join(udev, `b${number}`), 'utf8').catch(unlessLimit(''))).split('\n')
  for (const line of lines) {
    const [, name, value] = /^E:([^=]+)=(.+)$/.exec(line) ?? []
    if (name !== undefined && value !== undefined) found.set(name, value)
  }
  const links = lines.flatMap((line) => (line.startsWith('S:') ? [line.slice(2)] : []))
  return links.length === 0 ? found : found.set('S:', links.join('\n'))
}

/** Undefined if there is no such file, or nothing in it. */
async function text(folder: string, name: string): Promise<string | undefined> {
  return tidy(await readFile(join(folder, name), 'utf8').catch(unlessLimit('')))
}

/** Drives pad their words with blanks and zeros. */
function tidy(words: string): string | undefined {
  const trimmed = words.replace(/[\s\0]+/g, ' ').trim()
  return trimmed === '' ? undefined : trimmed
}

async function list(folder: string): Promise<string[]> {
  return readdir(folder).catch(unlessLimit([]))
}
