import { hash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'
import type { HashReply, HashRequest } from './hash-pool.ts'

/**
 * A thread that reads runs of a disk and hashes their blocks: both happen here, so that they use all cores and no block
 * crosses between threads. Plain synchronous calls: a worker does one thing at a time.
 */
const DIGEST_BYTES = 32

let file: { path: string; handle: number } | undefined
let buffer = Buffer.alloc(0)
let zeros = Buffer.alloc(0)
let digestOfZeros = Buffer.alloc(0)

parentPort?.on('message', (request: HashRequest) => {
  const reply = answer(request)
  parentPort?.postMessage(reply, 'digests' in reply ? [reply.digests.buffer as ArrayBuffer] : [])
})

function answer(request: HashRequest): HashReply {
  try {
    return { id: request.id, digests: hashRun(request) }
  } catch (error) {
    const fault = error as NodeJS.ErrnoException
    return { id: request.id, errno: fault.code ?? fault.message }
  }
}

function hashRun({ path, offset, length, blockSize }: HashRequest): Uint8Array {
  const blocks = Math.ceil(length / blockSize)
  read(path, offset, length, blocks * blockSize)
  if (zeros.byteLength !== blockSize) {
    zeros = Buffer.alloc(blockSize)
    digestOfZeros = hash('sha256', zeros, 'buffer')
  }
  const digests = new Uint8Array(blocks * DIGEST_BYTES)
  for (let i = 0; i < blocks; i++) {
    const block = buffer.subarray(i * blockSize, (i + 1) * blockSize)
    // Comparing is several times faster than hashing, and fresh disks are mostly zeros.
    digests.set(block.equals(zeros) ? digestOfZeros : hash('sha256', block, 'buffer'), i * DIGEST_BYTES)
  }
  return digests
}

function read(path: string, offset: number, length: number, padded: number): void {
  if (file?.path !== path) {
    if (file !== undefined) closeSync(file.handle)
    file = undefined
    file = { path, handle: openSync(path, 'r') }
  }
  if (buffer.byteLength < padded) buffer = Buffer.allocUnsafeSlow(padded)
  buffer.fill(0, length, padded)
  for (let done = 0; done < length; ) {
    const count = readSync(file.handle, buffer, done, length - done, offset + done)
    if (count === 0) throw new Error('the disk ends here')
    done += count
  }
}
