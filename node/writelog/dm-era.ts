import { isMeshError } from '../../protocol/errors.ts'
import type { Changes, ChangeTracker } from './change-tracker.ts'
import { ERA_SYSTEM, EraDevice, type EraPlace, type EraSystem } from './era-device.ts'
import { ERA_BLOCK_BYTES, MAX_ERAS_BETWEEN_MONITORS } from './limits.ts'
import { MAX_PERIOD_BYTES } from './log-layout.ts'
import type { RunningEra } from './running-era.ts'

/** What tells metadata from all others: the kernel keeps no name in them. */
export interface EraOrigin {
  /** The era they began with, drawn at random by whoever made them. */
  readonly first: number
  /** The era when `mesh monitor` set the device up last: writes have come no later. */
  readonly last: number
}

/**
 * The writes that the kernel's dm-era has seen. A period is named `FIRST.ERA.SECTORS`: metadata, era in which it began, and
 * size of the disk. A restore writes to the disk itself, while there is no era device over it (it would be
 * refused as in use); those writes are in no era, and need not be: the bitmap knows what a restore has left to do.
 */
export class DmEra implements ChangeTracker {
  readonly source = 'dm-era'
  readonly granuleSize = ERA_BLOCK_BYTES
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
        const reason = await this.#strange(running, Number(era))
        if (reason !== undefined) return { state: 'unknown', reason }
        return { state: 'known', granules: await running.writtenSince(Number(era)) }
      })
    } catch (error) {
      return { state: 'unknown', reason: reasonOf(error) }
    }
  }

  /** Where no era can begin the period is named after the reason: the restore is no worse for it, the next one scans. */
  async begin(): Promise<string> {
    try {
      return await this.#device.look(async (running) => {
        const reason = await this.#strange(running)
        if (reason !== undefined) return noEra(reason)
        return `${this.#origin.first}.${await running.checkpoint()}.${await this.#device.sectors()}`
      })
    } catch (error) {
      return noEra(reasonOf(error))
    }
  }

  async end(): Promise<void> {
    // The kernel keeps one number for each block, however many eras there were: there is nothing to forget.
  }

  /** Why these metadata are not, or not any more, the ones that have seen every write. */
  async #strange(running: RunningEra, since = this.#origin.first): Promise<string | undefined> {
    const { first, last } = this.#origin
    const era = await running.currentEra()
    if (era < last) return `dm-era counts ${era} eras, and has counted ${last} before`
    if (first > last || era > last + MAX_ERAS_BETWEEN_MONITORS) return `era ${era} is not of these metadata`
    if (since < first || since > era) return `era ${since} of the log is not of these metadata`
    return undefined
  }
}

/** The name of a period that did not begin; cut to what the bitmap can hold. */
function noEra(reason: string): string {
  const name = `!${reason.replaceAll('\n', ' ')}`
  let length = MAX_PERIOD_BYTES
  while (Buffer.byteLength(name.slice(0, length)) > MAX_PERIOD_BYTES) length--
  return name.slice(0, length)
}

/** Only for what the world does wrong. */
function reasonOf(error: unknown): string {
  if (!isMeshError(error)) throw error
  return error.message
}
