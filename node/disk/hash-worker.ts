import { hash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'
import type { HashFailure, HashReply, HashRequest } from './hash-pool.ts'

/**
 * A thread that reads runs of a disk and hashes their blocks: both happen here, so that they use all cores and no block
 * crosses between threads. Plain synchronous calls: a worker does one thing at a time.
 */
const DIGEST_BYTES = 32

/** The disk stays open from run to run of one scan; another scan opens it anew, as the path may lead elsewhere by then. */
let disk: { scan: number; handle: number } | undefined
let buffer = Buffer.alloc(0)
let zeros = Buffer.alloc(0)
let digestOfZeros = Buffer.alloc(0)

parentPort?.on('message', (request: HashRequest | { ended: number }) => {
  if ('ended' in request) {
    if (disk?.scan === request.ended) close()
    return
  }
  const reply = answer(request)
  parentPort?.postMessage(reply, 'digests' in reply ? [reply.digests.buffer as ArrayBuffer] : [])
})

function answer(request: HashRequest): HashReply {
  const failed = (doing: HashFailure['doing'], offset: number, error: unknown): HashReply => {
    const { code, message } = error as NodeJS.ErrnoException
    return { id: request.id, failure: { doing, offset, message, ...(code === undefined ? {} : { code }) } }
  }
  try {
    open(request)
  } catch (error) {
    return failed('opening', request.offset, error)
  }
  const { length, blockSize } = request
  const padded = Math.ceil(length / blockSize) * blockSize
  if (buffer.byteLength < padded) buffer = Buffer.allocUnsafeSlow(padded)
  buffer.fill(0, length, padded)
  let done = 0
  try {
    while (done < length) {
      const count = readSync(disk!.handle, buffer, done, length - done, request.offset + done)
      if (count === 0) throw new Error('the disk ends here')
      done += count
    }
  } catch (error) {
    return failed('reading', request.offset + done, error)
  }
  return { id: request.id, digests: hashBlocks(padded, blockSize) }
}

function hashBlocks(length: number, blockSize: number): Uint8Array {
  if (zeros.byteLength !== blockSize) {
    zeros = Buffer.alloc(blockSize)
    digestOfZeros = hash('sha256', zeros, 'buffer')
  }
  const digests = new Uint8Array((length / blockSize) * DIGEST_BYTES)
  for (let at = 0, i = 0; at < length; at += blockSize, i += DIGEST_BYTES) {
    const block = buffer.subarray(at, at + blockSize)
    // Comparing is several times faster than hashing, and fresh disks are mostly zeros.
    digests.set(block.equals(zeros) ? digestOfZeros : hash('sha256', block, 'buffer'), i)
  }
  return digests
}

function open({ path, scan }: HashRequest): void {
  if (disk?.scan === scan) return
  close()
  disk = { scan, handle: openSync(path, 'r') }
}

function close(): void {
  if (disk !== undefined) closeSync(disk.handle)
  disk = undefined
}
