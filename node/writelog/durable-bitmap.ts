import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Bitmap } from '../../protocol/bitmap.ts'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { type Digest, toHex } from '../../protocol/digest.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { byteOffset } from '../../protocol/units.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import type { DiskFacts } from '../disk/disk-facts.ts'
import { markDoubt } from '../disk/disk-mark.ts'
import { countUnits, type LogContents, readLog } from './log-file.ts'
import {
  BITS_PER_SECTOR,
  EPOCH_BYTES,
  encodeHeader,
  type LogHeader,
  LogLayout,
  SECTOR_BYTES,
  SECTOR_PAYLOAD_BYTES,
  sealSector,
} from './log-layout.ts'
import { type LogPlace, placeDoubt } from './log-place.ts'
import type { LogSource, LogState, WriteLog } from './write-log.ts'

/** What a log is opened with. */
export interface DurableBitmapOptions {
  /**
   * Where the log is kept: at least {@link logFileSize} bytes. It must not lie inside the image of the disk that it
   * speaks of.
   */
  readonly storage: BlockDevice
  /** The disk that the log speaks of. */
  readonly disk: DiskFacts
  /**
   * The release that clean units are to equal. A monitor, which only writes, leaves it out: the log then speaks of
   * whatever release its header names.
   */
  readonly release?: { readonly release: number; readonly root: Digest }
  /** Who marks. */
  readonly source: Exclude<LogSource, 'scan'>
  /** What the storage is, if that can be told, so that a copy that was put back is known as such; see {@link placeOf}. */
  readonly place?: LogPlace
  /** For a new log; an existing one with another unit is unknown. */
  readonly unitSize?: number
  readonly now?: () => number
}

const NEVER_RESTORED = 'no restore has been made under this log yet'

/** Bytes of storage that the log of a disk needs: 1/30720 of the disk with units of 4 KiB, 34 MiB for 1 TiB. */
export function logFileSize(diskSize: number, unitSize = GRANULE_SIZE_BYTES): number {
  return new LogLayout(countUnits(diskSize, unitSize)).fileSize
}

/**
 * Our own write log: a bitmap in memory and on stable storage (docs/DURABILITY.md, "The log file"). Marking a unit
 * that is marked already costs nothing. First marks that come together share one flush. Once the storage has failed
 * every method fails, because what cannot be logged must not be written. Errors: DISK_IO, DISK_FULL.
 */
export class DurableBitmap implements WriteLog {
  readonly source: LogSource
  readonly unitSize: number
  readonly #options: DurableBitmapOptions
  readonly #layout: LogLayout
  #header: LogHeader
  /** The stamp of the disk when the log was closed; '' if it was not closed. */
  #closedOver = ''
  #marked: Bitmap
  /** Sectors of bits that belong to this epoch. */
  #touched: Bitmap
  /** Witnesses that have nothing against this log. */
  readonly #agreed: string[] = []
  readonly #place: string
  /** Positions of sectors whose content in memory differs from what was written last. */
  #stale = new Set<number>()
  /** Sectors with marks that the flush under way, or the next one, makes durable. */
  #marking = new Set<number>()
  #flushing = new Set<number>()
  /** All file operations happen one after the other; this is the end of the last one. */
  #tail: Promise<void> = Promise.resolve()
  #current: Promise<void> | undefined
  #next: Promise<void> | undefined
  #opened = false
  #closed = false
  /**
   * Whether the storage holds this log. If it holds something else the log is unknown, and its marks stay in memory.
   */
  #attached = false
  /** Whether the log can be believed. */
  #known = false
  /**
   * Whether a restore opened a clean log and has marked nothing since. The header of such a log does not say that the
   * log is in use.
   */
  #untouched = false
  /** Flushes of the storage since it was opened, for benchmarks. */
  flushes = 0

  constructor(options: DurableBitmapOptions) {
    const { disk, source, unitSize = GRANULE_SIZE_BYTES } = options
    this.#options = options
    this.#place = options.place?.mark ?? ''
    this.source = source
    this.unitSize = unitSize
    this.#layout = new LogLayout(countUnits(disk.size, unitSize))
    this.#marked = new Bitmap(this.#layout.units)
    this.#touched = new Bitmap(this.#layout.bitSectors)
    this.#header = this.#newHeader({ doubt: NEVER_RESTORED })
  }

  /**
   * Makes the storage a log that is unknown, with `reason`, until the first {@link reset}. Durable when it resolves.
   */
  async format(reason = NEVER_RESTORED): Promise<void> {
    assert(!this.#opened, 'a log is formatted before it is opened')
    await this.#begin(this.#newHeader({ doubt: reason }), RangeSet.empty)
  }

  /** Units of the disk. */
  get units(): number {
    return this.#layout.units
  }

  /** When the epoch began, in milliseconds since 1970; 0 before the first restore. */
  get since(): number {
    return this.#header.since
  }

  /** The period of the change tracker that {@link reset} was given last; '' if none was. */
  get period(): string {
    return this.#header.period
  }

  /** The release that the log speaks of; root '' before the first restore. */
  get release(): { readonly release: number; readonly root: string } {
    const { release, root } = this.#header
    return { release, root }
  }

  async open(): Promise<LogState> {
    assert(!this.#closed && !this.#opened, 'a log is opened once')
    this.#opened = true
    const found = await this.#read()
    // Storage that holds no log is left alone until a restore begins the log anew.
    if (typeof found === 'string') return { state: 'unknown', reason: found }
    const refused = this.#refuse(found.header)
    if (refused === undefined) return this.#take(found)
    // Marks from now on are not kept. So the log must not be believed later either, when the disk has its old size or
    // its old name again.
    await this.#writeHeader({ ...found.header, doubt: refused })
    return { state: 'unknown', reason: refused }
  }

  async dirty(): Promise<RangeSet> {
    this.#assertOpen()
    return this.#marked.toRanges()
  }

  /** How many units are marked. */
  get dirtyCount(): number {
    return this.#marked.count
  }

  async mark(units: RangeSet): Promise<void> {
    this.#assertOpen()
    const waits = [...units.runs()].map(([start, end]) => this.markRun(start, end))
    await Promise.all(waits)
  }

  /** Marks one run. Undefined means that it is durable already, which is the usual case and must cost nothing. */
  markRun(start: number, end: number): Promise<void> | undefined {
    assert(start >= 0 && end <= this.#layout.units, `units [${start}, ${end})`)
    this.#assertOpen()
    let fresh = false
    let flushing = false
    for (let at = start; at < end; ) {
      const sector = Math.floor(at / BITS_PER_SECTOR)
      const stop = Math.min(end, (sector + 1) * BITS_PER_SECTOR)
      if (!this.#marked.hasRange(at, stop)) this.#mark(sector, at, stop)
      fresh ||= this.#marking.has(sector)
      flushing ||= this.#flushing.has(sector)
      at = stop
    }
    if (fresh) return this.#flushSoon()
    return flushing ? this.#current : undefined
  }

  /** Whether every unit of [start, end) is marked. The marks may not be durable yet. */
  isMarked(start: number, end: number): boolean {
    return this.#marked.hasRange(start, end)
  }

  /** The next unit at or after `from` that is marked (or is not), or the number of units. */
  nextChange(from: number, marked: boolean): number {
    const at = marked ? this.#marked.nextSet(from) : this.#marked.nextClear(from)
    return at === -1 ? this.#layout.units : at
  }

  /** Clears nothing in a log that is unknown: its marks say what differs from another release than the restored one. */
  async clear(units: RangeSet): Promise<void> {
    this.#assertOpen()
    if (!this.#known) return
    const inside = units.intersect(RangeSet.of(0, this.#layout.units))
    for (const [start, end] of inside.runs()) {
      for (let at = start; at < end; ) {
        const sector = Math.floor(at / BITS_PER_SECTOR)
        const stop = Math.min(end, (sector + 1) * BITS_PER_SECTOR)
        if (this.#touched.has(sector)) {
          this.#marked.clearRange(at, stop)
          this.#stale.add(this.#layout.bitsAt + sector)
        }
        at = stop
      }
    }
    await this.#serially(() => this.#writeStale())
  }

  /**
   * `period`: name of the change tracker's period, if the log goes with a tracker. Units behind the end of the disk
   * are ignored.
   */
  async reset(dirty: RangeSet, period = ''): Promise<void> {
    this.#assertOpen()
    const { now = Date.now, release } = this.#options
    assert(release !== undefined, 'a log is reset for a release')
    const header = this.#newHeader({
      release: release.release,
      root: toHex(release.root),
      since: now(),
      period,
      inUse: true,
    })
    await this.#begin(header, dirty.intersect(RangeSet.of(0, this.#layout.units)))
    this.#known = true
  }

  /** Whether the disk was written after the log was closed and before it was opened, as far as the stamp shows. */
  async writtenSinceClosed(): Promise<boolean> {
    if (this.#closedOver === '') return false
    const { changed, agreed } = await this.#options.disk.since(this.#closedOver)
    this.#agreed.push(...agreed)
    return changed !== undefined
  }

  /** What could have told that the log is not the newest, or that the disk was written past it, and did not; for the receipt. */
  get witness(): string {
    return this.#agreed.length === 0 ? 'none' : this.#agreed.join(', ')
  }

  /** Notes that the marks contain every change of the tracker's periods before `period`. Durable when it resolves. */
  async enter(period: string): Promise<void> {
    this.#assertOpen()
    await this.#serially(async () => {
      this.#header = { ...this.#header, period }
      if (this.#attached) await this.#writeHeader(this.#header)
    })
  }

  /** Makes the log unknown until the next {@link reset}. Durable when it resolves. */
  async doubt(reason: string): Promise<void> {
    this.#assertOpen()
    assert(reason !== '', 'a doubt has a reason')
    this.#known = false
    await this.#serially(async () => {
      this.#header = { ...this.#header, doubt: reason }
      if (this.#attached) await this.#writeHeader(this.#header)
    })
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    if (!this.#opened || !this.#attached) return
    await this.#serially(async () => {
      const stamp = await this.#options.disk.stamp()
      if (this.#untouched && stamp === this.#header.stamp) return
      await this.#writeStale()
      await this.#flush()
      this.#header = { ...this.#header, disk: this.#options.disk.mark, inUse: false, stamp }
      await this.#writeHeader(this.#header)
    })
  }

  #newHeader(part: Partial<LogHeader>): LogHeader {
    return {
      disk: this.#options.disk.mark,
      source: this.#options.source,
      diskSize: this.#options.disk.size,
      unitSize: this.unitSize,
      epoch: randomBytes(EPOCH_BYTES).toString('hex'),
      area: 0,
      release: 0,
      root: '',
      since: 0,
      inUse: false,
      stamp: '',
      period: '',
      place: this.#place,
      doubt: '',
      ...part,
    }
  }

  async #read(): Promise<LogContents | string> {
    const { storage } = this.#options
    if (this.#fits) return readLog(storage)
    return `${storage.path} is too small for the log: ${storage.size} of ${this.#layout.fileSize} bytes`
  }

  get #fits(): boolean {
    return this.#options.storage.size >= this.#layout.fileSize
  }

  /** Takes over the log that was found in the storage. */
  async #take(found: LogContents): Promise<LogState> {
    this.#attached = true
    this.#marked = found.marked
    this.#touched = found.touched
    this.#closedOver = found.header.inUse ? '' : found.header.stamp
    const doubt = found.doubt !== '' ? found.doubt : (this.#putBack(found.header) ?? (await this.#behindItsBack()))
    this.#header = { ...found.header, doubt }
    const other = this.#otherRelease()
    const clean = this.#marked.count === 0
    const believed = doubt === '' && other === undefined
    // A restore that finds nothing to do writes nothing to the disk, so it should cost no flush.
    this.#untouched = this.#options.release !== undefined && believed && clean && !found.header.inUse
    // A doubt stays in the header. So does the note that the log is in use, because the disk may be written from now
    // on.
    if (!this.#untouched) await this.#serially(() => this.#use())
    if (doubt !== '') return { state: 'unknown', reason: doubt }
    if (other !== undefined) return { state: 'unknown', reason: other, against: this.release }
    this.#known = true
    return { state: clean ? 'clean' : 'dirty', unclean: found.header.inUse }
  }

  /** Writes to the header that the log is in use. Durable when it resolves. */
  async #use(): Promise<void> {
    this.#untouched = false
    this.#header = { ...this.#header, inUse: true }
    await this.#writeHeader(this.#header)
  }

  /** Why the log speaks of something else than this disk; undefined if it does not. */
  #refuse(header: LogHeader): string | undefined {
    const { disk } = this.#options
    const other = markDoubt(header.disk, disk.mark)
    if (other !== undefined) return other
    if (header.source !== this.source) return `the log was kept by ${header.source}, not by ${this.source}`
    if (header.diskSize !== disk.size)
      return `the disk has ${disk.size} bytes, and had ${header.diskSize} when the log was begun`
    if (header.unitSize !== this.unitSize) return `the log has units of ${header.unitSize} bytes, not ${this.unitSize}`
    return undefined
  }

  #otherRelease(): string | undefined {
    const wanted = this.#options.release
    if (wanted === undefined || toHex(wanted.root) === this.#header.root) return undefined
    return `the log is of release ${this.#header.release}, not ${wanted.release}`
  }

  /** Why the storage is not the one that this log was kept in; undefined if it is, or nobody can tell. */
  #putBack({ place }: LogHeader): string | undefined {
    const now = this.#options.place
    const doubt = placeDoubt(place, now)
    if (doubt === undefined && now !== undefined && place !== '') this.#agreed.push('log file')
    return doubt
  }

  /**
   * How the disk was changed without the log; empty if it was not. A write past our own monitor shows in the stamp.
   * Writes that a change tracker sees are no reason: they are not in the bitmap yet.
   */
  async #behindItsBack(): Promise<string> {
    if (this.source !== 'nbd') return ''
    return (await this.writtenSinceClosed()) ? 'the disk was written after the log was closed' : ''
  }

  #mark(sector: number, start: number, end: number): void {
    this.#marked.setRange(start, end)
    this.#marking.add(sector)
    this.#stale.add(this.#layout.bitsAt + sector)
    if (this.#touched.set(sector))
      this.#stale.add(this.#layout.summaryAt(this.#header.area) + Math.floor(sector / BITS_PER_SECTOR))
  }

  /** Makes everything durable that is marked by now. All who ask before the flush begins share it. */
  #flushSoon(): Promise<void> {
    this.#next ??= this.#serially(async () => {
      this.#current = this.#next
      this.#next = undefined
      this.#flushing = this.#marking
      this.#marking = new Set()
      if (this.#untouched) await this.#use()
      await this.#writeStale()
      await this.#flush()
      this.#flushing = new Set()
    })
    return this.#next
  }

  /**
   * Begins a new epoch. Its bits and an empty summary are written first. They go to the summary area that the epoch in
   * force does not use, and to sectors of bits that the epoch in force then takes for units that may all be dirty.
   * When they are durable the header switches to the new epoch, in one sector.
   */
  async #begin(header: LogHeader, dirty: RangeSet): Promise<void> {
    await this.#serially(async () => {
      assert(this.#marking.size === 0, 'a log is reset while nothing is written')
      this.#attached = this.#fits
      this.#untouched = false
      const area = this.#header.area === 0 ? 1 : 0
      this.#header = { ...header, area }
      this.#marked = Bitmap.fromRanges(this.#layout.units, dirty)
      this.#touched = new Bitmap(this.#layout.bitSectors)
      this.#stale = new Set()
      for (let i = 0; i < this.#layout.summarySectors; i++) this.#stale.add(this.#layout.summaryAt(area) + i)
      for (const [start, end] of dirty.runs()) {
        const [first, last] = [Math.floor(start / BITS_PER_SECTOR), Math.ceil(end / BITS_PER_SECTOR)]
        this.#touched.setRange(first, last)
        for (let sector = first; sector < last; sector++) this.#stale.add(this.#layout.bitsAt + sector)
      }
      await this.#writeStale()
      await this.#flush()
      if (this.#attached) await this.#writeHeader(this.#header)
    })
  }

  /** Durable when it resolves. */
  async #writeHeader(header: LogHeader): Promise<void> {
    this.flushes++
    await this.#options.storage.write(byteOffset(0), encodeHeader(header))
    await this.#options.storage.flush()
  }

  /** Writes the sectors that are stale, neighbours together. */
  async #writeStale(): Promise<void> {
    if (!this.#attached) return this.#stale.clear()
    const positions = [...this.#stale].sort((a, b) => a - b)
    this.#stale.clear()
    const writes: Promise<void>[] = []
    for (let i = 0; i < positions.length; ) {
      const first = positions[i]!
      let count = 1
      while (positions[i + count] === first + count) count++
      const sectors = Buffer.allocUnsafe(count * SECTOR_BYTES)
      for (let j = 0; j < count; j++) this.#fill(sectors.subarray(j * SECTOR_BYTES, (j + 1) * SECTOR_BYTES), first + j)
      writes.push(this.#options.storage.write(byteOffset(first * SECTOR_BYTES), sectors))
      i += count
    }
    await Promise.all(writes)
  }

  #fill(sector: Buffer, position: number): void {
    const { bitsAt } = this.#layout
    const payload = sector.subarray(0, SECTOR_PAYLOAD_BYTES)
    if (position >= bitsAt) this.#marked.store((position - bitsAt) * BITS_PER_SECTOR, payload)
    else this.#touched.store((position - this.#layout.summaryAt(this.#header.area)) * BITS_PER_SECTOR, payload)
    sealSector(sector, Buffer.from(this.#header.epoch, 'hex'), position)
  }

  async #flush(): Promise<void> {
    if (!this.#attached) return
    this.flushes++
    await this.#options.storage.flush()
  }

  /**
   * Runs `work` after all work before it. After a failure nothing is tried again, because nobody knows what the storage
   * holds.
   */
  #serially(work: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(work)
    this.#tail = done
    // Whoever waits for this work gets the failure, and so does everybody who comes later.
    done.catch(() => undefined)
    return done
  }

  #assertOpen(): void {
    assert(this.#opened && !this.#closed, 'the write log is not open')
  }
}
