import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { MAX_HASH_WORKERS, SCAN_RUN_BYTES } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { countBlocks } from '../../protocol/units.ts'

export interface HashRequest {
  readonly id: number
  readonly path: string
  readonly offset: number
  readonly length: number
  readonly blockSize: number
}

export type HashReply =
  | { readonly id: number; readonly digests: Uint8Array }
  | { readonly id: number; readonly errno: string }

/** A part of a disk: from byte `offset`, `length` bytes, in blocks of `blockSize`. */
export type HashRun = Omit<HashRequest, 'id'>

interface Pending extends HashRun {
  resolve(digests: Uint8Array): void
  reject(error: unknown): void
}

/** Digests of consecutive blocks, 32 bytes each, the first being block `first`. */
export interface ScannedRun {
  readonly first: number
  readonly digests: Uint8Array
}

/** Runs per worker that a scan keeps asked for, so that no worker waits for the main thread. */
const RUNS_PER_WORKER = 2
const WORKER = new URL(import.meta.url.endsWith('.ts') ? './hash-worker.ts' : './hash-worker.js', import.meta.url)

/** Threads that read and hash disks on all cores. They start when there is work for them and end with {@link close}. */
export class HashPool {
  readonly workers: number
  readonly #idle: Worker[] = []
  readonly #started: Worker[] = []
  readonly #queue: Pending[] = []
  readonly #running = new Map<number, Pending>()
  #nextId = 0
  #closed = false

  constructor(options: { workers?: number } = {}) {
    this.workers = options.workers ?? Math.min(availableParallelism(), MAX_HASH_WORKERS)
    assert(this.workers >= 1)
  }

  /** Digests of the blocks of one run, packed; a tail shorter than a block is hashed zero-padded. Errors: DISK_IO. */
  hashRun(run: HashRun): Promise<Uint8Array> {
    assert(!this.#closed, 'the pool is closed')
    return new Promise((resolve, reject) => {
      this.#queue.push({ ...run, resolve, reject })
      this.#dispatch()
    })
  }

  /**
   * Hashes the first `size` bytes of a disk in order, leaving out the blocks in `skip`. Several runs are in flight;
   * memory does not depend on the size. Errors: DISK_IO, INTERRUPTED.
   */
  async *scan(
    path: string,
    image: { readonly size: number; readonly blockSize: number },
    options: { skip?: RangeSet; signal?: AbortSignal } = {},
  ): AsyncGenerator<ScannedRun> {
    const inFlight: { first: number; digests: Promise<Uint8Array> }[] = []
    const runs = scanRuns(image, options.skip ?? RangeSet.empty)
    try {
      for (;;) {
        while (inFlight.length < this.workers * RUNS_PER_WORKER) {
          const next = runs.next()
          if (next.done === true) break
          const [start, end] = next.value
          const offset = start * image.blockSize
          const length = Math.min(end * image.blockSize, image.size) - offset
          inFlight.push({ first: start, digests: this.hashRun({ path, offset, length, blockSize: image.blockSize }) })
        }
        const oldest = inFlight.shift()
        if (oldest === undefined) return
        const digests = await oldest.digests
        if (options.signal?.aborted) throw new MeshError('INTERRUPTED', `reading ${path} was interrupted`)
        yield { first: oldest.first, digests }
      }
    } finally {
      await Promise.allSettled(inFlight.map((run) => run.digests))
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#started.map((worker) => worker.terminate()))
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const worker = this.#idle.pop() ?? this.#start()
      if (worker === undefined) return
      const pending = this.#queue.shift()!
      const id = this.#nextId++
      this.#running.set(id, pending)
      const { path, offset, length, blockSize } = pending
      worker.postMessage({ id, path, offset, length, blockSize } satisfies HashRequest)
    }
  }

  #start(): Worker | undefined {
    if (this.#started.length >= this.workers) return undefined
    const worker = new Worker(WORKER)
    this.#started.push(worker)
    worker.on('message', (reply: HashReply) => {
      this.#idle.push(worker)
      this.#settle(reply)
      this.#dispatch()
    })
    worker.on('error', (error) => {
      for (const pending of [...this.#running.values(), ...this.#queue.splice(0)]) pending.reject(error)
      this.#running.clear()
    })
    return worker
  }

  #settle(reply: HashReply): void {
    const pending = this.#running.get(reply.id)
    assert(pending !== undefined)
    this.#running.delete(reply.id)
    if ('digests' in reply) {
      pending.resolve(reply.digests)
      return
    }
    const detail = { path: pending.path, offset: pending.offset }
    pending.reject(
      new MeshError('DISK_IO', `reading ${pending.path} failed near byte ${pending.offset}: ${reply.errno}`, {
        detail,
      }),
    )
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
