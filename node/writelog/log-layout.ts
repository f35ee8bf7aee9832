import assert from 'node:assert/strict'
import { crc32 } from 'node:zlib'
import { newerFormat } from '../../protocol/document.ts'

/**
 * How the durable bitmap lies in its file (docs/DURABILITY.md, "The log file"). Everything is a sector of 512 bytes
 * with a checksum of its own. A disk writes a sector whole or not at all.
 *
 *     header | summary, area 0 | summary, area 1 | bits
 *
 * A sector of bits covers 3840 units. The summary has one bit for each sector of bits: whether the sector was ever
 * written in this epoch. Sectors that the summary does not name count as zeros, whatever stands there. So a log begins
 * anew by a new epoch and an empty summary in the other area, and the time to open a log grows with what was marked.
 */
export const SECTOR_BYTES = 512
/** Bytes of bits in one sector; the rest is the seal. */
export const SECTOR_PAYLOAD_BYTES = 480
export const BITS_PER_SECTOR = SECTOR_PAYLOAD_BYTES * 8
export const EPOCH_BYTES = 16

const EPOCH_AT = SECTOR_PAYLOAD_BYTES
const POSITION_AT = EPOCH_AT + EPOCH_BYTES
const CHECKSUM_AT = SECTOR_BYTES - 4

/** Where the parts of a log for `units` units lie; all positions and counts are in sectors. */
export class LogLayout {
  readonly units: number
  /** Sectors of bits. */
  readonly bitSectors: number
  /** Sectors of one summary area. */
  readonly summarySectors: number

  constructor(units: number) {
    assert(Number.isSafeInteger(units) && units > 0)
    this.units = units
    this.bitSectors = Math.ceil(units / BITS_PER_SECTOR)
    this.summarySectors = Math.ceil(this.bitSectors / BITS_PER_SECTOR)
  }

  get fileSize(): number {
    return (1 + 2 * this.summarySectors + this.bitSectors) * SECTOR_BYTES
  }

  summaryAt(area: number): number {
    return 1 + area * this.summarySectors
  }

  get bitsAt(): number {
    return 1 + 2 * this.summarySectors
  }
}

/** Writes the seal behind the payload: epoch, the sector's own position, checksum (CRC-32) of all before it. */
export function sealSector(sector: Buffer, epoch: Uint8Array, position: number): void {
  sector.set(epoch, EPOCH_AT)
  sector.writeBigUInt64LE(BigInt(position), POSITION_AT)
  sector.fill(0, POSITION_AT + 8, CHECKSUM_AT)
  sector.writeUInt32LE(crc32(sector.subarray(0, CHECKSUM_AT)), CHECKSUM_AT)
}

/**
 * Says what a sector is: `current` is of this epoch; `other` is of another epoch, or was never written; `damaged` does
 * not fit its checksum, or is meant for another position.
 */
export function judgeSector(sector: Buffer, epoch: Uint8Array, position: number): 'current' | 'other' | 'damaged' {
  if (sector.readUInt32LE(CHECKSUM_AT) !== crc32(sector.subarray(0, CHECKSUM_AT)))
    return isZero(sector) ? 'other' : 'damaged'
  // The position is read in two halves: a log that is opened has tens of thousands of sectors, and a BigInt for each is
  // slow.
  const [low, high] = [sector.readUInt32LE(POSITION_AT), sector.readUInt32LE(POSITION_AT + 4)]
  if (high * 2 ** 32 + low !== position) return 'damaged'
  return sector.compare(epoch, 0, EPOCH_BYTES, EPOCH_AT, EPOCH_AT + EPOCH_BYTES) === 0 ? 'current' : 'other'
}

function isZero(sector: Buffer): boolean {
  return sector.every((byte) => byte === 0)
}

/** What the header says. */
export interface LogHeader {
  /** What the disk is, as `markOf` of node/disk writes it. */
  readonly disk: string
  /** Who marks. A log says nothing about writes that went another way. */
  readonly source: string
  /** Bytes. */
  readonly diskSize: number
  readonly unitSize: number
  /** Hexadecimal. */
  readonly epoch: string
  /** Which summary area is in force. */
  readonly area: 0 | 1
  /** The release that clean units equal; 0 and '' before the first restore. */
  readonly release: number
  /** Root of its hash tree, hexadecimal. */
  readonly root: string
  /** When the epoch began, in milliseconds since 1970: the end of the restore, or of the scan before it. */
  readonly since: number
  /** True from opening to closing. */
  readonly inUse: boolean
  /** Digest of what the disk looked like when the log was closed, so that a change without the log shows. */
  readonly stamp: string
  /** Period of the change tracker that the log goes with, '' if it stands alone. */
  readonly period: string
  /** What the file is that the log is kept in, hashed, so that a copy is known as such; '' if that cannot be told. */
  readonly place: string
  /** Why nothing may be concluded from the log, '' if it may. */
  readonly doubt: string
}

const MAGIC_NAME = 'LAB-MESH WRITE LOG '
/** Format 1 did not name the place of the log. */
const FORMAT = 2
const MAGIC = `${MAGIC_NAME}${FORMAT}\n`
/** Fields in their order in the file, separated by newlines; no field can contain one. */
const FIELDS = [
  'disk',
  'source',
  'diskSize',
  'unitSize',
  'epoch',
  'area',
  'release',
  'root',
  'since',
  'inUse',
  'stamp',
  'period',
  'place',
  'doubt',
] as const satisfies readonly (keyof LogHeader)[]

/** Longest reason that is kept in a header, in bytes. */
const MAX_DOUBT_BYTES = 72
/** The name of a change tracker’s period, in bytes of UTF-8: what the header sector has room for. */
export const MAX_PERIOD_BYTES = 80

/** The header's sector. A longer doubt is cut. */
export function encodeHeader(header: LogHeader): Buffer {
  assert(Buffer.byteLength(header.period) <= MAX_PERIOD_BYTES, 'the name of a period is too long')
  const doubt = Buffer.from(header.doubt.replaceAll('\n', ' ')).subarray(0, MAX_DOUBT_BYTES).toString()
  const text = FIELDS.map((field) => (field === 'doubt' ? doubt : String(header[field]))).join('\n')
  const sector = Buffer.alloc(SECTOR_BYTES)
  assert(MAGIC.length + Buffer.byteLength(text) <= CHECKSUM_AT, 'the header is too long for its sector')
  sector.write(MAGIC + text)
  sector.writeUInt32LE(crc32(sector.subarray(0, CHECKSUM_AT)), CHECKSUM_AT)
  return sector
}

/** Whether a place whose first sector is `sector` may become a log: it is empty, or holds a log of any version. */
export function isLogOrNothing(sector: Buffer): boolean {
  return isZero(sector) || sector.toString('latin1', 0, MAGIC_NAME.length) === MAGIC_NAME
}

function hasNumbers(named: Partial<Record<keyof LogHeader, string>>): boolean {
  const isFrom = (least: number, text = ''): boolean =>
    /^\d+$/.test(text) && Number(text) >= least && Number.isSafeInteger(Number(text))
  const areCounts = isFrom(1, named.diskSize) && isFrom(1, named.unitSize)
  return areCounts && isFrom(0, named.release) && isFrom(0, named.since) && /^[0-9a-f]{32}$/.test(named.epoch ?? '')
}

/** The inverse of {@link encodeHeader}, or why it is no header. */
export function decodeHeader(sector: Buffer): LogHeader | string {
  if (isZero(sector)) return 'no restore has been made under this log yet'
  const text = sector.subarray(0, CHECKSUM_AT).toString().replace(/\0+$/, '')
  if (!text.startsWith(MAGIC)) {
    const version = /^LAB-MESH WRITE LOG (\d+)\n/.exec(text)?.[1]
    if (version === undefined) return 'the log file holds something else'
    return Number(version) < FORMAT
      ? `the write log was written by an older version of mesh (format ${version}, now ${FORMAT})`
      : newerFormat('the write log', Number(version), FORMAT)
  }
  if (sector.readUInt32LE(CHECKSUM_AT) !== crc32(sector.subarray(0, CHECKSUM_AT))) return 'the log’s header is damaged'
  const values = text.slice(MAGIC.length).split('\n')
  const named = Object.fromEntries(FIELDS.map((field, i) => [field, values[i] ?? '']))
  // Whoever is root on the machine can write a header with a right checksum.
  if (!hasNumbers(named)) return 'the log’s header is damaged'
  return {
    disk: named.disk!,
    source: named.source!,
    diskSize: Number(named.diskSize),
    unitSize: Number(named.unitSize),
    epoch: named.epoch!,
    area: named.area === '1' ? 1 : 0,
    release: Number(named.release),
    root: named.root!,
    since: Number(named.since),
    inUse: named.inUse === 'true',
    stamp: named.stamp!,
    period: named.period!,
    place: named.place!,
    doubt: named.doubt!,
  }
}
