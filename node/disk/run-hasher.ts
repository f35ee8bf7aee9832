import { hash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { DIGEST_SIZE_BYTES, GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { zeroDigest } from '../../protocol/digest.ts'
import { AnchorGatherer } from './anchors.ts'
import { diskEnd } from './device-fault.ts'
import type { HashFailure, HashReply, HashRequest } from './hash-messages.ts'

/**
 * Reads runs of a disk and hashes their blocks in the thread that calls, so that no block crosses between threads. Its
 * calls are synchronous: a thread does one run at a time. Each run is one long read, because a real disk is fast only
 * when it is asked for much at once.
 */
export class RunHasher {
  /**
   * The disk of one scan stays open from run to run. Another scan opens its path anew, because the path may lead to
   * another disk by then.
   */
  #disk: { scan: number; handle: number } | undefined
  #buffer = Buffer.alloc(0)
  /** The buffer again, as words of 32 bits. */
  #words = new Uint32Array(0)
  #zeros = Buffer.alloc(0)

  /** Hashes one run into a buffer of its own. A fault of the disk is returned as a failure, not thrown. */
  hash(request: HashRequest): HashReply {
    const failed = (doing: HashFailure['doing'], offset: number, error: unknown): HashReply => {
      const { code, message } = error as NodeJS.ErrnoException
      return { id: request.id, failure: { doing, offset, message, ...(code === undefined ? {} : { code }) } }
    }
    let handle: number
    try {
      handle = this.#open(request)
    } catch (error) {
      return failed('opening', request.offset, error)
    }
    const { length, blockSize } = request
    const padded = Math.ceil(length / blockSize) * blockSize
    if (this.#buffer.byteLength < padded) {
      this.#buffer = Buffer.allocUnsafeSlow(padded)
      this.#words = new Uint32Array(this.#buffer.buffer)
    }
    this.#buffer.fill(0, length, padded)
    let done = 0
    try {
      while (done < length) {
        const count = readSync(handle, this.#buffer, done, length - done, request.offset + done)
        if (count === 0) throw diskEnd()
        done += count
      }
    } catch (error) {
      return failed('reading', request.offset + done, error)
    }
    const { anchorBits } = request
    const granules = Math.floor(length / GRANULE_SIZE_BYTES)
    const gatherer = anchorBits === undefined ? undefined : new AnchorGatherer(anchorBits, granules)
    const digests = this.#hashBlocks(padded, blockSize, (start, end) => {
      // The rest of a run that is no whole granule is left out.
      gatherer?.look(this.#words, start / GRANULE_SIZE_BYTES, Math.min(end / GRANULE_SIZE_BYTES, granules))
    })
    return { id: request.id, digests, ...(gatherer === undefined ? {} : { anchors: gatherer.anchors }) }
  }

  /** Closes the disk of a scan that has ended. */
  release(scan: number): void {
    if (this.#disk?.scan !== scan) return
    this.#close()
    this.#buffer = Buffer.alloc(0)
    this.#words = new Uint32Array(0)
  }

  /**
   * `hashed` is called with the place of each block that is not zeros, while the block is still in the processor's
   * cache.
   */
  #hashBlocks(length: number, blockSize: number, hashed: (start: number, end: number) => void): Uint8Array {
    if (this.#zeros.byteLength !== blockSize) this.#zeros = Buffer.alloc(blockSize)
    const digests = Buffer.allocUnsafeSlow((length / blockSize) * DIGEST_SIZE_BYTES)
    for (let at = 0, i = 0; at < length; at += blockSize, i += DIGEST_SIZE_BYTES) {
      const block = this.#buffer.subarray(at, at + blockSize)
      // A comparison with zeros comes first: it is several times faster than hashing, and fresh disks are mostly zeros.
      if (block.equals(this.#zeros)) {
        digests.set(zeroDigest(blockSize), i)
        continue
      }
      // The digest comes as a string: a buffer for each digest costs 5 % more than hashing 64 KiB.
      digests.write(hash('sha256', block, 'binary'), i, 'binary')
      hashed(at, at + blockSize)
    }
    return digests
  }

  #open({ path, scan }: HashRequest): number {
    if (this.#disk?.scan !== scan) {
      this.#close()
      this.#disk = { scan, handle: openSync(path, 'r') }
    }
    return this.#disk!.handle
  }

  #close(): void {
    if (this.#disk !== undefined) closeSync(this.#disk.handle)
    this.#disk = undefined
  }
}
