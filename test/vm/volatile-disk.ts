import { open } from 'node:fs/promises'
import type { DoneSoon, NbdExport } from '../../node/nbd/nbd-export.ts'
import { NbdServer } from '../../node/nbd/nbd-server.ts'
import type { Random } from '../../tools/lab/random.ts'

const SECTOR_BYTES = 512
/** Parts of what was not flushed that a power cut keeps: none, all, or some. */
const SHARES_KEPT = [0, 0.1, 0.5, 0.9, 1]
const FILE_PART_BYTES = 64 * 1024 ** 2

/**
 * A guest’s disk in our memory, with a cache that a power cut empties: of the sectors that were written and not flushed it keeps any, and of each the
 * newest content or what was flushed last. A sector is old or new as a whole.
 */
export class VolatileDisk implements NbdExport {
  readonly name = ''
  readonly description = ''
  readonly size: number
  readonly readOnly = false
  readonly contexts = []
  readonly #content: Buffer
  /** What was flushed last of each sector that was written since. */
  readonly #flushed = new Map<number, Buffer>()
  #server: NbdServer | undefined
  /** Writes until the disk stops, and what is told then. */
  #left = Number.POSITIVE_INFINITY
  #stopped: () => void = () => undefined
  readonly #unanswered: ((reason: Error) => void)[] = []

  /** `size`: bytes, whole sectors. It holds zeros. */
  constructor(size: number) {
    this.size = size
    this.#content = Buffer.alloc(size)
  }

  /** Serves the disk from now on. Returns QEMU’s -drive option for it. `socket`: a path. */
  async serve(socket: string): Promise<string> {
    this.#server = await NbdServer.listen({ unix: socket }, { exports: [this] })
    return `file=nbd+unix:///?socket=${socket},format=raw`
  }

  async close(): Promise<void> {
    await this.#server?.close()
  }

  read(offset: number, into: Uint8Array): undefined {
    into.set(this.#content.subarray(offset, offset + into.byteLength))
  }

  announceWrite(): void {
    // Nothing is to be known before.
  }

  write(offset: number, data: Uint8Array): DoneSoon {
    if (!this.#takes()) return this.#never()
    this.#remember(offset, data.byteLength)
    this.#content.set(data, offset)
    return undefined
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    if (!this.#takes()) return this.#never()
    this.#remember(offset, length)
    this.#content.fill(0, offset, offset + length)
  }

  async trim(): Promise<void> {
    // The content stays.
  }

  async flush(): Promise<void> {
    if (this.#left < 0) return this.#never()
    this.#flushed.clear()
  }

  /** The disk takes so many writes from now on, and then nothing more until {@link cut}. Resolves at the first that it does not take. */
  stopAfter(writes: number): Promise<void> {
    this.#left = writes
    return new Promise((resolve) => {
      this.#stopped = resolve
    })
  }

  /** The power is off, and on again: the guest must be gone. Returns how many sectors were not flushed, and how many of them are lost. */
  cut(random: Random): { unflushed: number; lost: number } {
    const share = SHARES_KEPT[random.below(SHARES_KEPT.length)]!
    const unflushed = this.#flushed.size
    let lost = 0
    for (const [sector, content] of this.#flushed) {
      if (random.next() < share) continue
      content.copy(this.#content, sector * SECTOR_BYTES)
      lost++
    }
    this.#flushed.clear()
    this.#left = Number.POSITIVE_INFINITY
    for (const reject of this.#unanswered.splice(0)) reject(new Error('the power was cut'))
    return { unflushed, lost }
  }

  /** Writes the content as it is now to a file. */
  async save(path: string): Promise<void> {
    await using file = await open(path, 'w')
    for (let at = 0; at < this.size; at += FILE_PART_BYTES)
      await file.write(this.#content, at, Math.min(FILE_PART_BYTES, this.size - at), at)
  }

  #takes(): boolean {
    if (--this.#left >= 0) return true
    this.#stopped()
    return false
  }

  /** An error would be one of the disk. What a machine without power has asked for is never answered, until it is gone. */
  #never(): Promise<void> {
    return new Promise((_, reject) => this.#unanswered.push(reject))
  }

  #remember(offset: number, length: number): void {
    const end = Math.ceil((offset + length) / SECTOR_BYTES)
    for (let sector = Math.floor(offset / SECTOR_BYTES); sector < end; sector++) {
      const at = sector * SECTOR_BYTES
      if (!this.#flushed.has(sector))
        this.#flushed.set(sector, Buffer.from(this.#content.subarray(at, at + SECTOR_BYTES)))
    }
  }
}
