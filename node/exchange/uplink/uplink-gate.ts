import type { ServeGate } from '../serve-gate.ts'
import type { UplinkFigures } from './uplink-figures.ts'
import { type Clock, type UplinkLimit, UplinkPace } from './uplink-pace.ts'

/** Holds back what is served to other sites: all machines of one site together get no more than the rule of the uplink lets. */
export class UplinkGate implements ServeGate {
  readonly #siteOf: (peerId: string) => string | undefined
  readonly #figures: UplinkFigures
  /** By site, once something was sent there. */
  readonly #paces = new Map<string, UplinkPace>()
  #limit: UplinkLimit | undefined
  #clock: Clock | undefined

  /** `siteOf` is undefined for a near peer. */
  constructor(options: { readonly siteOf: (peerId: string) => string | undefined; readonly figures: UplinkFigures }) {
    this.#siteOf = options.siteOf
    this.#figures = options.figures
  }

  /** What a user says of the uplink from now on; undefined: nothing is held back. */
  limit(limit: UplinkLimit | undefined, clock: Clock): void {
    this.#limit = limit
    this.#clock = clock
    this.#paces.clear()
  }

  waitMs(client: string): number {
    return this.#paceOf(client)?.pace.waitMs() ?? 0
  }

  spend(client: string, bytes: number): void {
    const known = this.#paceOf(client)
    if (known === undefined) return
    this.#paces.set(known.site, known.pace)
    known.pace.spend(bytes)
  }

  sent(client: string, level: number, bytes: number): void {
    this.#figures.count(client, 'out', level === 0 ? 'blocks' : 'pages', bytes)
  }

  /** The pace of the client's site, a new one if nothing was sent there yet; undefined if nothing limits the client. */
  #paceOf(client: string): { readonly site: string; readonly pace: UplinkPace } | undefined {
    if (this.#limit === undefined || this.#clock === undefined) return undefined
    const site = this.#siteOf(client)
    if (site === undefined) return undefined
    return { site, pace: this.#paces.get(site) ?? new UplinkPace(this.#limit, this.#clock) }
  }
}
