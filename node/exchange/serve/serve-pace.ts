import { SERVE_BURST_MS, SERVE_CPU_TURN_MS, SERVE_CPU_WINDOW_MS, SERVE_METER_MS } from './limits.ts'

/** What serving may take of the machine; what is left out has no limit. */
export interface ServeLimits {
  /** Bytes of content per second, to all clients together. */
  readonly bytesPerSecond?: number
  /** Of one core: 0.5 is half of it. */
  readonly cpuShare?: number
  /** Peers that are served at a time. */
  readonly peers?: number
}

/** Why serving waits. */
export type Capped = 'rate' | 'cpu'

/** Where a {@link ServePace} has its times from. */
export interface PaceOptions {
  /** Milliseconds. */
  readonly now: () => number
  /** Milliseconds of processor time that this process has used. */
  readonly cpuMs: () => number
}

/** Keeps serving within its limits: says how long it has to wait before it may go on, and why. */
export class ServePace {
  readonly #options: PaceOptions
  #rate: Allowance | undefined
  #cpu: Allowance | undefined
  #cpuMs = 0
  /** Bytes sent, as much as had not faded at the time `#meteredAt`. */
  #metered = 0
  #meteredAt: number
  #bytes = 0

  constructor(options: PaceOptions) {
    this.#options = options
    this.#meteredAt = options.now()
  }

  limit({ bytesPerSecond, cpuShare }: ServeLimits): void {
    const now = this.#options.now()
    this.#rate = bytesPerSecond === undefined ? undefined : new Allowance(bytesPerSecond / 1000, SERVE_BURST_MS, now)
    this.#cpu = cpuShare === undefined ? undefined : new Allowance(cpuShare, SERVE_CPU_WINDOW_MS, now)
    this.#cpuMs = this.#options.cpuMs()
  }

  /** Counts the processor time used meanwhile, and returns how many milliseconds nothing may be sent (0: go on), and why. */
  measure(): { readonly ms: number; readonly why: Capped | undefined } {
    const now = this.#options.now()
    const rateMs = this.#rate?.waitMs(now) ?? 0
    const cpuMs = this.#countCpu(now)
    if (rateMs === 0 && cpuMs === 0) return { ms: 0, why: undefined }
    return rateMs > cpuMs ? { ms: rateMs, why: 'rate' } : { ms: cpuMs, why: 'cpu' }
  }

  /** Bytes that are about to be sent, or (negative) were not sent after all. */
  spend(bytes: number): void {
    this.#rate?.spend(bytes, this.#options.now())
  }

  /** Bytes were sent. */
  sent(bytes: number): void {
    this.#metered = this.#faded() + bytes
    this.#meteredAt = this.#options.now()
    this.#bytes += bytes
  }

  /** Bytes sent since this process began. */
  get bytes(): number {
    return this.#bytes
  }

  /** Bytes per second, lately. */
  get bytesPerSecond(): number {
    return (this.#faded() * 1000) / SERVE_METER_MS
  }

  /**
   * Counts all that the process has used, and returns for how long that leaves none for serving. What other work has used
   * beyond one window, and beyond what a turn can take, is forgiven.
   */
  #countCpu(now: number): number {
    if (this.#cpu === undefined) return 0
    const cpuMs = this.#options.cpuMs()
    this.#cpu.spend(cpuMs - this.#cpuMs, now)
    this.#cpu.forgiveBeyond(SERVE_CPU_TURN_MS)
    this.#cpuMs = cpuMs
    return this.#cpu.waitMs(now)
  }

  #faded(): number {
    return this.#metered * Math.exp((this.#meteredAt - this.#options.now()) / SERVE_METER_MS)
  }
}

/**
 * A token bucket that may be overdrawn by what is under way. Over any time it lets through what it grants in that time, what
 * it saves up, and one spending.
 */
class Allowance {
  readonly #perMs: number
  readonly #most: number
  #left: number
  #at: number

  /** Saves up what it grants in `burstMs`. */
  constructor(perMs: number, burstMs: number, now: number) {
    this.#perMs = perMs
    this.#most = perMs * burstMs
    this.#left = this.#most
    this.#at = now
  }

  spend(amount: number, now: number): void {
    this.#left = Math.min(this.#most, this.#leftAt(now) - amount)
    this.#at = now
  }

  /** Owes no more than it can save up, or `amount` if that is more. */
  forgiveBeyond(amount: number): void {
    this.#left = Math.max(this.#left, -Math.max(this.#most, amount))
  }

  waitMs(now: number): number {
    // What rounding leaves is no debt.
    return Math.max(0, Math.ceil(-this.#leftAt(now) / this.#perMs - 1e-6))
  }

  #leftAt(now: number): number {
    return Math.min(this.#most, this.#left + (now - this.#at) * this.#perMs)
  }
}
