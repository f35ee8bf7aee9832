import { BUSY_RETRY_MAX_MS, BUSY_RETRY_MIN_MS } from '../limits.ts'
import type { ServeGate } from '../serve-gate.ts'
import { FairQueue } from './fair-queue.ts'
import {
  SERVE_BUFFER_BYTES,
  SERVE_GATE_TICK_MS,
  SERVE_PORTION_BYTES,
  SERVE_QUEUE_MIN_BYTES,
  SERVE_QUEUE_MS,
  SERVE_TURN_BYTES,
  SERVE_TURN_MIN_BYTES,
  SERVE_TURN_MS,
} from './limits.ts'
import { type Capped, type PaceOptions, type ServeLimits, ServePace } from './serve-pace.ts'
import { ServePlaces } from './serve-places.ts'

/** A request that was admitted. */
export interface ServeJob {
  /** Peer that asked. */
  readonly client: string
  /** Bytes of content that are asked for: what fairness and limits count. */
  readonly cost: number
  /** Bytes that have to be read and hashed for it. */
  readonly size: number
  /** Of the tree: 0 for blocks. */
  readonly level?: number
}

interface SchedulerOptions<Job> extends Partial<PaceOptions> {
  /** Answers these, and calls {@link ServeScheduler.taken} for each when the client's stream has room for more. */
  readonly serve: (jobs: readonly Job[]) => Promise<void>
  readonly gate?: ServeGate
}

/** What serving does at the moment. */
export interface ServeFigures {
  /** Bytes of content sent since this process began, and per second lately. */
  readonly bytes: number
  readonly bytesPerSecond: number
  /** Peers that wait for an answer, or have not taken it yet. */
  readonly clients: number
  /** Peers that were told to come back. */
  readonly waiting: number
  readonly capped?: Capped
}

/**
 * Decides whose request is answered next, over all clients of this machine. Clients are served in turn by bytes, within the
 * limits; a client whose stream does not take what was sent is left out. Requests are answered in turns, one after the other, so
 * that each turn is one sweep over the disk; between turns the rest of the process goes on.
 */
export class ServeScheduler<Job extends ServeJob> {
  readonly #serve: (jobs: readonly Job[]) => Promise<void>
  readonly #now: () => number
  readonly #gate: ServeGate | undefined
  readonly #pace: ServePace
  readonly #places = new ServePlaces()
  readonly #queue = new FairQueue<Job>()
  /** Bytes picked, and not yet taken by the stream, of each client. */
  readonly #buffered = new Map<string, number>()
  #bufferedBytes = 0
  #limits: ServeLimits = {}
  #turnBytes = SERVE_TURN_BYTES
  #busy = false
  #timer: NodeJS.Timeout | undefined
  #gateTimer: NodeJS.Timeout | undefined
  #closed = false
  #capped: Capped | undefined

  constructor(options: SchedulerOptions<Job>) {
    const { now = () => performance.now(), cpuMs = processCpuMs } = options
    this.#serve = options.serve
    this.#now = now
    this.#gate = options.gate
    this.#pace = new ServePace({ now, cpuMs })
  }

  /** What serving may take of the machine from now on. */
  limit(limits: ServeLimits): void {
    this.#limits = limits
    this.#pace.limit(limits)
    this.#places.limit(limits.peers ?? Number.POSITIVE_INFINITY)
    clearTimeout(this.#timer)
    if (this.#timer !== undefined) this.#busy = false
    this.#timer = undefined
    this.#kick()
  }

  /**
   * Admits one more request of a client that has requests for `openBytes` open, and with it the client to a place if places are
   * limited. Returns 0, or after how many milliseconds the client should ask again. With a limit on the rate, requests that
   * would not be answered in time only keep the client from asking others.
   */
  admit(client: string, openBytes: number): number {
    const { bytesPerSecond, peers } = this.#limits
    if (peers !== undefined) {
      const now = this.#now()
      for (const served of this.#clients()) this.#places.saw(served, now)
      const placeMs = this.#places.ask(client, now)
      if (placeMs > 0) return placeMs
    }
    if (bytesPerSecond === undefined) return 0
    const share = bytesPerSecond / Math.max(1, this.#clients().size)
    if (openBytes < Math.max(SERVE_QUEUE_MIN_BYTES, (share * SERVE_QUEUE_MS) / 1000)) return 0
    const halfMs = (openBytes * 1000) / share / 2
    return Math.min(BUSY_RETRY_MAX_MS, Math.max(BUSY_RETRY_MIN_MS, Math.ceil(halfMs)))
  }

  /** An admitted request waits for its turn. */
  push(job: Job): void {
    this.#queue.push(job.client, job)
    this.#kick()
  }

  /** Takes out what is no longer wanted. */
  remove(client: string, isGone: (job: Job) => boolean): void {
    this.#queue.remove(client, isGone)
  }

  /** An answer of `bytes` was sent, and the stream takes more; 0 bytes if there was nothing to send. */
  taken(job: Job, bytes: number): void {
    this.#pace.spend(bytes - job.cost)
    if (bytes > 0) this.#pace.sent(bytes)
    this.#gate?.spend(job.client, bytes - job.cost)
    this.#gate?.sent(job.client, job.level ?? 0, bytes)
    const left = (this.#buffered.get(job.client) ?? 0) - job.cost
    if (left > 0) this.#buffered.set(job.client, left)
    else this.#buffered.delete(job.client)
    this.#bufferedBytes -= job.cost
    this.#kick()
  }

  /** The client has no stream any more. */
  leave(client: string): void {
    this.#places.leave(client)
  }

  figures(): ServeFigures {
    const { bytes, bytesPerSecond } = this.#pace
    const waits = !this.#queue.isEmpty && this.#capped !== undefined
    return {
      bytes,
      bytesPerSecond,
      clients: this.#clients().size,
      waiting: this.#places.waiting,
      ...(waits ? { capped: this.#capped! } : {}),
    }
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
    clearTimeout(this.#gateTimer)
  }

  #clients(): Set<string> {
    return new Set([...this.#queue.clients, ...this.#buffered.keys()])
  }

  /** Begins a turn after this one of the event loop, so that all that is asked meanwhile is answered together. */
  #kick(): void {
    if (this.#busy || this.#closed || this.#queue.isEmpty) return
    this.#busy = true
    setImmediate(() => void this.#turn())
  }

  async #turn(): Promise<void> {
    const { ms, why } = this.#pace.measure()
    this.#capped = why
    if (this.#closed) return
    if (ms > 0) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined
        void this.#turn()
      }, ms)
      this.#timer.unref()
      return
    }
    const jobs = this.#pick()
    if (jobs.length > 0) {
      const begun = this.#now()
      await this.#serve(jobs)
      this.#adapt(this.#now() - begun)
    }
    this.#busy = false
    // If no stream had room, the next stream that has some begins a turn.
    if (jobs.length > 0) this.#kick()
    else this.#awaitGate()
  }

  /** A client that waits is held back by its stream, which begins the next turn itself, or by the gate, which is asked when. */
  #awaitGate(): void {
    const waits = [...this.#queue.clients].map((client) => this.#gate?.waitMs(client) ?? 0).filter((ms) => ms > 0)
    if (waits.length === 0 || this.#gateTimer !== undefined) return
    this.#gateTimer = setTimeout(
      () => {
        this.#gateTimer = undefined
        this.#kick()
      },
      Math.min(SERVE_GATE_TICK_MS, ...waits),
    )
    this.#gateTimer.unref()
  }

  #pick(): Job[] {
    const jobs: Job[] = []
    const portion = Math.min(SERVE_PORTION_BYTES, SERVE_BUFFER_BYTES / Math.max(1, this.#clients().size))
    const isReady = (client: string): boolean =>
      (this.#buffered.get(client) ?? 0) < portion && (this.#gate?.waitMs(client) ?? 0) === 0
    for (let bytes = 0; bytes < this.#turnBytes && this.#bufferedBytes < SERVE_BUFFER_BYTES; ) {
      if (jobs.length > 0 && this.#pace.measure().ms > 0) break
      const next = this.#queue.take(isReady)
      if (next === undefined) break
      const { client, item } = next
      jobs.push(item)
      bytes += item.size
      this.#pace.spend(item.cost)
      this.#gate?.spend(client, item.cost)
      this.#buffered.set(client, (this.#buffered.get(client) ?? 0) + item.cost)
      this.#bufferedBytes += item.cost
    }
    return jobs
  }

  /** A slow disk gets less at a time, so that a small request does not wait long for a turn of others. */
  #adapt(tookMs: number): void {
    const next = tookMs > SERVE_TURN_MS ? this.#turnBytes / 2 : this.#turnBytes * 2
    this.#turnBytes = Math.min(SERVE_TURN_BYTES, Math.max(SERVE_TURN_MIN_BYTES, next))
  }
}

function processCpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}
