import { DIAL_STAGGER_MS, HANDSHAKE_STAGGER_MS } from './limits.ts'

/** The address that answered first, what came of it, and why others failed before. */
interface Winner<T> {
  readonly address: string
  readonly value: T
  readonly failures: ReadonlyMap<string, unknown>
}

interface RaceOptions<T> {
  /** Tries one address until `signal` aborts; calls `answered` when somebody is there, and only the handshake is missing. */
  readonly attempt: (address: string, signal: AbortSignal, answered: () => void) => Promise<T>
  /** Takes back what came of an attempt that ended after another one had won. */
  readonly discard: (value: T) => void
  readonly signal: AbortSignal
}

/** No address led to the peer: why, by address. */
export class AllFailed extends Error {
  readonly failures: ReadonlyMap<string, unknown>

  constructor(failures: ReadonlyMap<string, unknown>) {
    super('no address answered')
    this.failures = failures
  }
}

/**
 * Tries addresses side by side ("Happy Eyeballs", RFC 8305): the next one begins DIAL_STAGGER_MS after the one before, at once if
 * that failed, and later if somebody answered there. The first that succeeds ends all the others. Errors: AllFailed.
 */
export function raceAddresses<T>(addresses: readonly string[], options: RaceOptions<T>): Promise<Winner<T>> {
  return new Race(addresses, options).run()
}

class Race<T> {
  readonly #options: RaceOptions<T>
  readonly #left: string[]
  readonly #failures = new Map<string, unknown>()
  /** Each attempt is ended by itself: the signal of the one that wins must never abort, or its connection would. */
  readonly #running = new Set<AbortController>()
  readonly #outcome = Promise.withResolvers<Winner<T>>()
  #timer: NodeJS.Timeout | undefined
  #isOver = false

  constructor(addresses: readonly string[], options: RaceOptions<T>) {
    this.#left = [...addresses]
    this.#options = options
  }

  run(): Promise<Winner<T>> {
    this.#options.signal.addEventListener('abort', this.#stop)
    this.#beginNext()
    return this.#outcome.promise
  }

  readonly #stop = (): void => {
    clearTimeout(this.#timer)
    for (const one of this.#running) one.abort(this.#options.signal.reason)
  }

  #finish(): void {
    this.#isOver = true
    this.#options.signal.removeEventListener('abort', this.#stop)
    this.#stop()
  }

  #beginNext(): void {
    clearTimeout(this.#timer)
    const address = this.#options.signal.aborted ? undefined : this.#left.shift()
    if (address !== undefined) {
      void this.#try(address)
      this.#beginNextIn(DIAL_STAGGER_MS)
    } else if (this.#running.size === 0) {
      this.#finish()
      this.#outcome.reject(new AllFailed(this.#failures))
    }
  }

  #beginNextIn(ms: number): void {
    if (this.#isOver || this.#left.length === 0) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#beginNext(), ms)
  }

  async #try(address: string): Promise<void> {
    const own = new AbortController()
    this.#running.add(own)
    try {
      const value = await this.#options.attempt(address, own.signal, () => this.#beginNextIn(HANDSHAKE_STAGGER_MS))
      this.#running.delete(own)
      if (this.#isOver) return this.#options.discard(value)
      this.#finish()
      this.#outcome.resolve({ address, value, failures: this.#failures })
    } catch (error) {
      this.#running.delete(own)
      this.#failures.set(address, error)
      if (!this.#isOver) this.#beginNext()
    }
  }
}
