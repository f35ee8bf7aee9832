import assert from 'node:assert/strict'
import type { BlockDevice } from '../../node/disk/block-device.ts'
import { type ByteCount, type ByteOffset, byteCount } from '../../protocol/units.ts'
import type { Random } from '../lab/random.ts'
import type { Power } from './power.ts'

const SECTOR_BYTES = 512
/** Parts of the sectors that arrived although they were not flushed: none, all, or some. */
const SHARES_KEPT = [0, 0.1, 0.5, 0.9, 1]
/** One sector in 64 of those that arrived is torn, if tearing is asked for. */
const TORN_ONE_IN = 64

interface Write {
  readonly offset: number
  readonly data: Buffer
}

/**
 * A disk in memory with a volatile cache. A write that was done before a flush began is durable when the flush ends. Of
 * all other writes, those under way included, a power cut keeps any sectors and drops the others; of two writes to a
 * sector it keeps either one. Operations that begin after the cut do not happen.
 */
export class PowerCutDevice implements BlockDevice {
  readonly path: string
  readonly size: ByteCount
  readonly kind = 'block'
  /** The content that reads see. */
  readonly #live: Buffer
  readonly #durable: Buffer
  /** Writes that are not flushed, in the order in which they were done. */
  #cached: Write[] = []
  /** Writes that were begun and not done. */
  readonly #underWay = new Set<Write>()
  readonly #power: Power

  /** The device takes `content` over. */
  constructor(path: string, content: Buffer, power: Power) {
    this.path = path
    this.size = byteCount(content.byteLength)
    this.#live = Buffer.from(content)
    this.#durable = content
    this.#power = power
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    assert(offset + into.byteLength <= this.size)
    await this.#power.tick(`${this.path} read`)
    into.set(this.#live.subarray(offset, offset + into.byteLength))
  }

  async write(offset: ByteOffset, data: Uint8Array): Promise<void> {
    assert(offset + data.byteLength <= this.size)
    this.#power.assertOn()
    const write = { offset, data: Buffer.from(data) }
    this.#underWay.add(write)
    await this.#power.tick(`${this.path} write${offset === 0 ? ' at 0' : ''}`)
    this.#underWay.delete(write)
    write.data.copy(this.#live, offset)
    this.#cached.push(write)
  }

  async flush(): Promise<void> {
    const covered = new Set(this.#cached)
    await this.#power.tick(`${this.path} flush`)
    // Another flush may have made some of these writes durable meanwhile. They must not be written over newer ones.
    for (const write of this.#cached) if (covered.has(write)) write.data.copy(this.#durable, write.offset)
    this.#cached = this.#cached.filter((write) => !covered.has(write))
  }

  async close(): Promise<void> {
    // There is nothing to close.
  }

  /**
   * The content of the disk when the power is back; may be called once. A sector is old or new as a whole. With `torn`
   * one of the sectors that were being written may be a mixture.
   */
  afterCut(random: Random, options: { torn?: boolean } = {}): Buffer {
    const found = this.#durable
    const share = SHARES_KEPT[random.below(SHARES_KEPT.length)]!
    for (const { offset, data } of [...this.#cached, ...this.#underWay]) {
      const first = Math.floor(offset / SECTOR_BYTES)
      const end = Math.ceil((offset + data.byteLength) / SECTOR_BYTES)
      for (let sector = first; sector < end; sector++) {
        if (random.next() >= share) continue
        const from = Math.max(offset, sector * SECTOR_BYTES)
        const whole = Math.min(offset + data.byteLength, (sector + 1) * SECTOR_BYTES)
        const torn = options.torn === true && random.below(TORN_ONE_IN) === 0
        const to = torn ? from + random.below(whole - from) : whole
        data.copy(found, from, from - offset, to - offset)
      }
    }
    return found
  }

  /** A copy of the content as reads see it, for a comparison. */
  content(): Buffer {
    return Buffer.from(this.#live)
  }

  /** The content that is on stable storage whatever happens. Callers must not change it. */
  get durable(): Buffer {
    return this.#durable
  }
}
