import { Bitmap } from '../../protocol/bitmap.ts'
import { byteOffset } from '../../protocol/units.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import { LOG_READ_BYTES } from './limits.ts'
import {
  BITS_PER_SECTOR,
  decodeHeader,
  judgeSector,
  type LogHeader,
  LogLayout,
  SECTOR_BYTES,
  SECTOR_PAYLOAD_BYTES,
} from './log-layout.ts'

/** The content of a log file. */
export interface LogContents {
  readonly header: LogHeader
  readonly layout: LogLayout
  /** The units that are marked. */
  readonly marked: Bitmap
  /** Sectors of bits that belong to this epoch. */
  readonly touched: Bitmap
  /** Why the bits cannot be believed; '' if they can. */
  readonly doubt: string
  /** Damage that was found. It is named in the doubt, too. */
  readonly damage?: string
}

/** Units of a disk; the last one may be cut short. */
export function countUnits(diskSize: number, unitSize: number): number {
  return Math.ceil(diskSize / unitSize)
}

/**
 * Reads a log, or returns why the file holds none. The time it takes grows with what was ever marked in this epoch.
 * Errors: DISK_IO.
 */
export async function readLog(storage: BlockDevice): Promise<LogContents | string> {
  if (storage.size < SECTOR_BYTES) return 'the log file is cut short'
  const sector = Buffer.alloc(SECTOR_BYTES)
  await storage.read(byteOffset(0), sector)
  const header = decodeHeader(sector)
  if (typeof header === 'string') return header
  const layout = new LogLayout(countUnits(header.diskSize, header.unitSize))
  if (storage.size < layout.fileSize) return `the log file is cut short: ${storage.size} of ${layout.fileSize} bytes`
  const touched = new Bitmap(layout.bitSectors)
  const marked = new Bitmap(layout.units)
  const damage =
    (await readSummary(storage, header, layout, touched)) ?? (await readBits(storage, header, layout, touched, marked))
  const doubt = damage ?? header.doubt
  return { header, layout, marked, touched, doubt, ...(damage === undefined ? {} : { damage }) }
}

async function readSummary(
  storage: BlockDevice,
  header: LogHeader,
  layout: LogLayout,
  touched: Bitmap,
): Promise<string | undefined> {
  const first = layout.summaryAt(header.area)
  const sectors = Buffer.alloc(layout.summarySectors * SECTOR_BYTES)
  await storage.read(byteOffset(first * SECTOR_BYTES), sectors)
  const epoch = Buffer.from(header.epoch, 'hex')
  for (let i = 0; i < layout.summarySectors; i++) {
    const sector = sectors.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES)
    // The summary of an epoch is whole before the epoch begins.
    if (judgeSector(sector, epoch, first + i) !== 'current') return `the log is damaged in sector ${first + i}`
    touched.load(i * BITS_PER_SECTOR, sector.subarray(0, SECTOR_PAYLOAD_BYTES))
  }
  return undefined
}

async function readBits(
  storage: BlockDevice,
  header: LogHeader,
  layout: LogLayout,
  touched: Bitmap,
  marked: Bitmap,
): Promise<string | undefined> {
  const epoch = Buffer.from(header.epoch, 'hex')
  const step = LOG_READ_BYTES / SECTOR_BYTES
  const buffer = Buffer.allocUnsafeSlow(LOG_READ_BYTES)
  for (const [start, end] of touched.toRanges().runs()) {
    for (let first = start; first < end; first += step) {
      const count = Math.min(step, end - first)
      const sectors = buffer.subarray(0, count * SECTOR_BYTES)
      await storage.read(byteOffset((layout.bitsAt + first) * SECTOR_BYTES), sectors)
      for (let i = 0; i < count; i++) {
        const sector = sectors.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES)
        const position = layout.bitsAt + first + i
        const verdict = judgeSector(sector, epoch, position)
        if (verdict === 'damaged') return `the log is damaged in sector ${position}`
        // The summary names the sector, but its bits were not written: a mark was cut off. Nobody knows of which
        // units, so all of them count as dirty.
        if (verdict === 'other') sector.fill(0xff, 0, SECTOR_PAYLOAD_BYTES)
        marked.load((first + i) * BITS_PER_SECTOR, sector.subarray(0, SECTOR_PAYLOAD_BYTES))
      }
    }
  }
  return undefined
}
