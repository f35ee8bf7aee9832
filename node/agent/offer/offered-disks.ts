import { isMeshError } from '../../../protocol/errors.ts'
import { OfferedDisk, type OfferedDiskOptions } from './offered-disk.ts'
import type { HeldRelease, Offer } from './open-source.ts'
import { otherImages } from './other-images.ts'
import { otherPartitions } from './other-partitions.ts'

/** All that a running command offers: the disk of this machine, those of its further partitions, and on the master the other images that it has published. */
export class OfferedDisks {
  readonly #options: OfferedDiskOptions
  readonly #stack: AsyncDisposableStack
  readonly #held: HeldRelease[] = []

  /** Offers until the stack ends. */
  constructor(options: OfferedDiskOptions, stack: AsyncDisposableStack) {
    this.#options = options
    this.#stack = stack
  }

  /** What is offered now, the image of this machine first. */
  get held(): readonly HeldRelease[] {
    return this.#held
  }

  /** Offers `main`, and what else there is. Returns what is offered of `main`. Errors: those of {@link OfferedDisk.open} for `main`. */
  async openAll(main: Offer | undefined): Promise<HeldRelease | undefined> {
    const { machine, report } = this.#options
    const held = main === undefined ? undefined : await this.open(main)
    const isMaster = machine.config.role === 'master'
    const others = isMaster ? otherImages(machine, main?.manifest.image, report) : otherPartitions(machine, report)
    for (const other of await others) {
      await this.open(other).catch((error: unknown) => {
        if (!isMeshError(error)) throw error
        report({ type: 'warning', text: `image ${other.manifest.image} is not offered: ${error.message}` })
      })
    }
    return held
  }

  /** Offers one disk more. Errors: as {@link OfferedDisk.open}. */
  async open(offer: Offer): Promise<HeldRelease | undefined> {
    const held = await new OfferedDisk(this.#options).open(offer, this.#stack)
    if (held !== undefined) this.#held.push(held)
    return held
  }
}
