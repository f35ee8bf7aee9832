import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { setImmediate as turn } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { MeshError } from '../../protocol/errors.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { countBlocks } from '../../protocol/units.ts'
import { openFault, transferFault } from './device-fault.ts'
import type { HashedRun, HashReply, HashRequest, HashRun } from './hash-messages.ts'
import { HASH_WORKER_WORTH_BYTES, MAX_HASH_WORKERS, SCAN_RUN_BYTES } from './limits.ts'
import { RunHasher } from './run-hasher.ts'

interface Pending extends HashRequest {
  resolve(hashed: HashedRun): void
  reject(error: unknown): void
}

/** Digests of consecutive blocks, 32 bytes each, the first being block `first`. */
export interface ScannedRun extends HashedRun {
  readonly first: number
}

/**
 * Runs that a worker has at a time: one in work and one that waits, so that the worker never waits for the main thread.
 */
const RUNS_PER_WORKER = 2
/** Runs per worker that a scan is ahead of its consumer. Only their digests are kept: 2 KiB for a run of 4 MiB. */
const RUNS_AHEAD_PER_WORKER = 4
/**
 * Limits of a worker's heap. A worker needs one buffer and short-lived digests; without a limit its heap would grow as
 * the main one may.
 */
const WORKER_HEAP = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 }
const WORKER = new URL(import.meta.url.endsWith('.ts') ? './hash-worker.ts' : './hash-worker.js', import.meta.url)

interface HashPoolOptions {
  /** Threads that hash. @default as many as there are cores, up to MAX_HASH_WORKERS */
  readonly workers?: number
  /**
   * The thread that calls is one of the threads that hash. This is for a command that has nothing else to do meanwhile,
   * because the thread is blocked for one run at a time. Other threads start only when the work is worth it
   * (HASH_WORKER_WORTH_BYTES). @default false
   */
  readonly here?: boolean
}

/** Threads that read and hash disks on all cores. They start when there is work, and end when a scan has ended. */
export class HashPool {
  /** Threads that hash; the one that calls counts if it hashes. */
  readonly workers: number
  /** The hasher of this thread, if it hashes, and whether it is at work. */
  readonly #here: RunHasher | undefined
  #busyHere = false
  /** Started workers, and how many runs each has. */
  readonly #started = new Map<Worker, number>()
  readonly #queue: Pending[] = []
  readonly #running = new Map<number, Pending>()
  /** How many threads may be started. */
  #allowed: number
  #nextId = 0
  #nextScan = 0
  /** The reason why nothing can be hashed any more. */
  #ended: Error | undefined

  constructor(options: HashPoolOptions = {}) {
    this.workers = options.workers ?? Math.min(availableParallelism(), MAX_HASH_WORKERS)
    assert(this.workers >= 1)
    this.#here = options.here === true ? new RunHasher() : undefined
    this.#allowed = this.#here === undefined ? this.workers : 0
  }

  /** Starts the threads that hashing `bytes` is worth, so that they run when the work comes. */
  prepare(bytes: number): void {
    assert(this.#ended === undefined)
    this.#allowed = Math.max(this.#allowed, this.#worth(bytes))
    while (this.#started.size < this.#allowed) this.#start()
  }

  /**
   * Digests of the blocks of one run, packed; a tail shorter than a block is hashed zero-padded.
   * Errors: DISK_IO with the offset, DISK_MISSING, DISK_UNREADABLE.
   */
  async hashRun(run: HashRun): Promise<Uint8Array> {
    const scan = this.#nextScan++
    try {
      return (await this.#hash(run, scan)).digests
    } finally {
      this.#release(scan)
    }
  }

  /**
   * Hashes the first `size` bytes of a disk in order, without the blocks in `skip`. Several runs are in flight; memory
   * does not grow with `size`. Errors: DISK_IO with the offset, DISK_MISSING, DISK_UNREADABLE, INTERRUPTED.
   */
  async *scan(
    path: string,
    image: { readonly size: number; readonly blockSize: number },
    options: { skip?: RangeSet; anchorBits?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<ScannedRun> {
    const scan = this.#nextScan++
    const inFlight: { first: number; hashed: Promise<HashedRun> }[] = []
    const runs = scanRuns(image, options.skip ?? RangeSet.empty)
    this.#allowed = Math.max(this.#allowed, this.#worth(image.size))
    try {
      for (;;) {
        while (inFlight.length < this.workers * RUNS_AHEAD_PER_WORKER) {
          const next = runs.next()
          if (next.done === true) break
          const [first, end] = next.value
          const offset = first * image.blockSize
          const length = Math.min(end * image.blockSize, image.size) - offset
          const { anchorBits } = options
          const hashed = this.#hash({ path, offset, length, blockSize: image.blockSize, anchorBits }, scan)
          // A later run may fail while an earlier one is waited for. The failure is reported when the turn of the later
          // run comes.
          hashed.catch(() => undefined)
          inFlight.push({ first, hashed })
        }
        const oldest = inFlight.shift()
        if (oldest === undefined) return
        const hashed = await oldest.hashed
        if (options.signal?.aborted) throw new MeshError('INTERRUPTED', `reading ${path} was interrupted`)
        yield { first: oldest.first, ...hashed }
      }
    } finally {
      await Promise.allSettled(inFlight.map((run) => run.hashed))
      this.#release(scan)
      // The threads end with the scan, because the work that follows a scan needs their memory.
      if (this.#queue.length === 0 && this.#running.size === 0) await this.#rest()
    }
  }

  /** Ends the threads. Runs that are still being hashed are rejected with INTERRUPTED. */
  async close(): Promise<void> {
    this.#end(new MeshError('INTERRUPTED', 'hashing was stopped'))
    await this.#rest()
  }

  /** Ends the threads; they start again when there is work. */
  async #rest(): Promise<void> {
    const threads = [...this.#started.keys()]
    this.#started.clear()
    for (const thread of threads) for (const event of ['online', 'message', 'exit']) thread.removeAllListeners(event)
    await Promise.all(threads.map((thread) => thread.terminate()))
  }

  #hash(run: HashRun, scan: number): Promise<HashedRun> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) {
        reject(this.#ended)
        return
      }
      this.#queue.push({ ...run, scan, id: this.#nextId++, resolve, reject })
      this.#dispatch()
    })
  }

  /** Lets the workers close the disk of a scan that has ended. */
  #release(scan: number): void {
    this.#here?.release(scan)
    for (const worker of this.#started.keys()) worker.postMessage({ ended: scan })
  }

  /** Threads besides this one that are worth starting for so many bytes. */
  #worth(bytes: number): number {
    if (this.#here === undefined) return this.workers
    return Math.min(this.workers - 1, Math.floor(bytes / HASH_WORKER_WORTH_BYTES))
  }

  #dispatch(): void {
    if (this.#here !== undefined && !this.#busyHere && this.#queue.length > 0) void this.#hashHere(this.#here)
    while (this.#queue.length > 0) {
      const worker = this.#leastBusy()
      if (worker === undefined) return
      const pending = this.#queue.shift()!
      this.#running.set(pending.id, pending)
      this.#started.set(worker, this.#started.get(worker)! + 1)
      const { id, scan, path, offset, length, blockSize, anchorBits } = pending
      worker.postMessage({ id, scan, path, offset, length, blockSize, anchorBits } satisfies HashRequest)
    }
  }

  /**
   * Returns an idle worker. If there is none it starts one, if another is allowed; else it returns a worker whose next
   * run would wait. Undefined if every worker has enough.
   */
  #leastBusy(): Worker | undefined {
    let best: Worker | undefined
    let load = RUNS_PER_WORKER
    for (const [worker, runs] of this.#started) if (runs < load) [best, load] = [worker, runs]
    if (load === 0 || this.#started.size >= this.#allowed) return best
    const started = this.#start()
    return this.#started.get(started)! < RUNS_PER_WORKER ? started : best
  }

  /**
   * Hashes waiting runs one after the other. Between two runs messages, signals and those who wait for digests have
   * their turn.
   */
  async #hashHere(hasher: RunHasher): Promise<void> {
    this.#busyHere = true
    await turn()
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      this.#running.set(next.id, next)
      this.#settle(hasher.hash(next))
      await turn()
    }
    this.#busyHere = false
  }

  #start(): Worker {
    // The worker gets none of the flags of this process: some of them (--input-type) would stop it.
    const worker = new Worker(WORKER, { execArgv: [], resourceLimits: WORKER_HEAP })
    if (this.#here === undefined) this.#started.set(worker, 0)
    else {
      // A new thread counts as full until it runs. That takes as long as many runs, which this thread hashes meanwhile.
      this.#started.set(worker, RUNS_PER_WORKER)
      worker.once('online', () => {
        this.#started.set(worker, 0)
        this.#dispatch()
      })
    }
    worker.on('message', (reply: HashReply) => {
      if (this.#ended !== undefined) return
      this.#started.set(worker, this.#started.get(worker)! - 1)
      this.#settle(reply)
      this.#dispatch()
    })
    worker.on('error', (error) => this.#end(error))
    worker.on('exit', () => this.#end(new Error('a hashing thread ended by itself')))
    return worker
  }

  #settle(reply: HashReply): void {
    const pending = this.#running.get(reply.id)
    assert(pending !== undefined)
    this.#running.delete(reply.id)
    if ('digests' in reply) {
      const { digests, anchors } = reply
      pending.resolve(anchors === undefined ? { digests } : { digests, anchors })
      return
    }
    const { doing, offset, code, message } = reply.failure
    const cause = Object.assign(new Error(message), code === undefined ? {} : { code })
    pending.reject(
      doing === 'opening'
        ? openFault(pending.path, cause, { writable: false })
        : transferFault('reading', pending.path, offset, cause),
    )
  }

  /** Rejects what is pending, and everything from now on, with the first reason that was given. */
  #end(reason: Error): void {
    this.#ended ??= reason
    for (const pending of [...this.#running.values(), ...this.#queue.splice(0)]) pending.reject(this.#ended)
    this.#running.clear()
  }
}

/** Runs of blocks of at most SCAN_RUN_BYTES, without the skipped ones. */
function* scanRuns(
  image: { readonly size: number; readonly blockSize: number },
  skip: RangeSet,
): Generator<[number, number]> {
  const step = Math.max(1, Math.floor(SCAN_RUN_BYTES / image.blockSize))
  const wanted = RangeSet.of(0, countBlocks(image.size, image.blockSize)).subtract(skip)
  for (const [start, end] of wanted.runs()) {
    for (let at = start; at < end; at += step) yield [at, Math.min(at + step, end)]
  }
}
