import { readdir, readFile, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { MeshError } from '../../protocol/errors.ts'

/** Devices that are no disks of the computer. */
export const NO_DISK = /^(loop|ram|zram|dm-|md|sr|fd|nbd|mtdblock)|^mmcblk\d+(boot|rpmb)/

/** A disk that stays in its computer. */
export interface FixedDisk {
  /** `/dev/nvme0n1` */
  readonly path: string
  /** Bytes of the disk, and of its logical sectors. */
  readonly size: number
  readonly sectorBytes: number
  /** What the drive calls itself; may be empty. */
  readonly model: string
}

/** Disks that are built in and can be written, by path: no sticks and others on USB, no CDs, no memory cards. */
export async function fixedDisks(sys = '/sys'): Promise<FixedDisk[]> {
  const disks: FixedDisk[] = []
  for (const name of (await readdir(join(sys, 'block')).catch(() => [])).filter((one) => !NO_DISK.test(one)).sort()) {
    const folder = join(sys, 'block', name)
    const text = async (file: string): Promise<string> =>
      (await readFile(join(folder, file), 'utf8').catch(() => '')).trim()
    const isBuiltIn =
      (await text('removable')) !== '1' &&
      (await text('ro')) !== '1' &&
      (await text('device/type')) !== 'SD' &&
      !(await realpath(folder)).includes('/usb')
    // In sectors of 512 bytes, whatever the device's own are.
    const size = Number(await text('size')) * 512
    const sectorBytes = Number((await text('queue/logical_block_size')) || 512)
    if (isBuiltIn && size > 0)
      disks.push({ path: `/dev/${name.replaceAll('!', '/')}`, size, sectorBytes, model: await text('device/model') })
  }
  return disks
}

/**
 * The disk that a bare machine is to have: the one that is named, else the only one that is built in and has at least `least` bytes.
 * Errors: DISK_MISSING, BOOT_DISK_UNCLEAR, DISK_TOO_SMALL.
 */
export function chooseFixedDisk(disks: readonly FixedDisk[], least: number, named?: string): FixedDisk {
  const all = disks.map(({ path, size, model }) => `${path} (${size} bytes${model === '' ? '' : `, ${model}`})`)
  const listed = all.join(', ') || 'none'
  if (named !== undefined) {
    const found = disks.find(({ path }) => path === named)
    if (found !== undefined) return found
    throw new MeshError('DISK_MISSING', `there is no built-in disk ${named}; there are: ${listed}`)
  }
  const large = disks.filter(({ size }) => size >= least)
  const [only] = large
  if (only !== undefined && large.length === 1) return only
  if (large.length > 1)
    throw new MeshError('BOOT_DISK_UNCLEAR', `this machine has several disks that could be laid out: ${listed}`)
  if (disks.length === 0) throw new MeshError('DISK_MISSING', 'this machine has no built-in disk')
  throw new MeshError('DISK_TOO_SMALL', `no disk has ${least} bytes; there are: ${listed}`)
}
