import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'

const MIB = 1024 ** 2
const BLOCK = 65536
/** Bytes of the buffer: more than the caches of a core hold, as with blocks that come from anywhere. */
const BUFFER = 16 * MIB

/** How fast this machine computes SHA-256 with all cores. */
export interface HashLimit {
  readonly mibPerSecond: number
  /** CPU time of all threads for the bytes that were hashed. */
  readonly cpuSeconds: number
}

/**
 * Hashes `size` bytes of blocks in memory, by one-shot SHA-256 on all cores at once. Nothing that hashes can be faster.
 * Digests come as strings: a buffer for each would make the limit 5 % slower.
 */
export async function hashLimit(size: number): Promise<HashLimit> {
  const threads = availableParallelism()
  const blocks = Math.floor(size / BLOCK / threads)
  const source = `const { hash } = require('node:crypto'); const { parentPort } = require('node:worker_threads')
    const data = Buffer.alloc(${BUFFER}, 1); for (let i = 0; i < data.length; i += 4096) data[i] = i / 4096
    parentPort.on('message', () => {
      for (let i = 0; i < ${blocks}; i++) hash('sha256', data.subarray((i % 256) * ${BLOCK}, (i % 256 + 1) * ${BLOCK}), 'binary')
      parentPort.postMessage('done')
    })
    parentPort.postMessage('ready')`
  const workers = Array.from({ length: threads }, () => new Worker(source, { eval: true }))
  const all = (): Promise<unknown> =>
    Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))))
  await all()
  const before = process.cpuUsage()
  const startedAt = performance.now()
  const done = all()
  for (const worker of workers) worker.postMessage('go')
  await done
  const seconds = (performance.now() - startedAt) / 1000
  const { user, system } = process.cpuUsage(before)
  await Promise.all(workers.map((worker) => worker.terminate()))
  return { mibPerSecond: (blocks * threads * BLOCK) / MIB / seconds, cpuSeconds: (user + system) / 1e6 }
}
