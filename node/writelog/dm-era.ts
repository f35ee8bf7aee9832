import { isMeshError } from '../../protocol/errors.ts'
import type { Changes, ChangeTracker } from './change-tracker.ts'
import { ERA_SYSTEM, EraDevice, type EraPlace, type EraSystem } from './era-device.ts'
import { ERA_BLOCK_BYTES, MAX_ERAS_BETWEEN_MONITORS } from './limits.ts'
import { MAX_PERIOD_BYTES } from './log-layout.ts'

/** Tells these metadata from all others, because the kernel keeps no name in them. */
export interface EraOrigin {
  /** The era with which the metadata began. Whoever made them drew it at random. */
  readonly first: number
  /** The era in which `mesh monitor` set the device up last. Writes came in this era or a later one. */
  readonly last: number
}

/**
 * The writes that the kernel's dm-era has seen. The name of a period is `FIRST.ERA.SECTORS`: the metadata, the era in
 * which the period began, and the size of the disk. A restore writes to the disk itself, while there is no era device
 * over it. Those writes are in no era and need not be: our bitmap knows what a restore has left to do.
 */
export class DmEra implements ChangeTracker {
  readonly source = 'dm-era'
  readonly unitSize = ERA_BLOCK_BYTES
  readonly #device: EraDevice
  readonly #origin: EraOrigin

  constructor(options: EraPlace & EraOrigin, system: EraSystem = ERA_SYSTEM) {
    this.#device = new EraDevice(options, system)
    this.#origin = options
  }

  async changedSince(period: string): Promise<Changes> {
    if (period.startsWith('!')) return { state: 'unknown', reason: period.slice(1) }
    const [, first, era, sectors] = /^(\d+)\.(\d+)\.(\d+)$/.exec(period) ?? []
    if (era === undefined) return { state: 'unknown', reason: 'the log names no era' }
    if (Number(first) !== this.#origin.first)
      return { state: 'unknown', reason: 'the log goes with other metadata of dm-era' }
    try {
      const now = await this.#device.sectors()
      if (now !== Number(sectors))
        return { state: 'unknown', reason: `the disk has ${now} sectors, and had ${sectors} when the era began` }
      return await this.#device.look(async (running) => {
        const { era: current, units } = await running.writtenSince(Number(era))
        const reason = this.#strange(current, Number(era))
        return reason === undefined ? { state: 'known', units } : { state: 'unknown', reason }
      })
    } catch (error) {
      return { state: 'unknown', reason: reasonOf(error) }
    }
  }

  /**
   * If no era can begin, the name of the period is the reason. This restore is no worse for it, and the next restore
   * scans.
   */
  async begin(): Promise<string> {
    try {
      return await this.#device.look(async (running) => {
        const reason = this.#strange(await running.currentEra())
        if (reason !== undefined) return noEra(reason)
        return `${this.#origin.first}.${await running.checkpoint()}.${await this.#device.sectors()}`
      })
    } catch (error) {
      return noEra(reasonOf(error))
    }
  }

  async end(): Promise<void> {
    // There is nothing to forget: the kernel keeps one number for each unit, however many eras there were.
  }

  /** Why metadata that count in `era` did not see every write; undefined if they did. */
  #strange(era: number, since = this.#origin.first): string | undefined {
    const { first, last } = this.#origin
    if (era < last) return `dm-era counts ${era} eras, and has counted ${last} before`
    if (first > last || era > last + MAX_ERAS_BETWEEN_MONITORS) return `era ${era} is not of these metadata`
    if (since < first || since > era) return `era ${since} of the log is not of these metadata`
    return undefined
  }
}

/** The name of a period that did not begin, cut to what the header of the bitmap can hold. */
function noEra(reason: string): string {
  const name = `!${reason.replaceAll('\n', ' ')}`
  let length = MAX_PERIOD_BYTES
  while (Buffer.byteLength(name.slice(0, length)) > MAX_PERIOD_BYTES) length--
  return name.slice(0, length)
}

/** The message of a fault of the world; a bug is thrown again. */
function reasonOf(error: unknown): string {
  if (!isMeshError(error)) throw error
  return error.message
}
