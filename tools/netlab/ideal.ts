import { hash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { DEFAULT_BLOCK_SIZE_BYTES, GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'

const STEP = 1024 * GRANULE_SIZE_BYTES

/**
 * What the content alone asks of the network, in bytes. Zeros, and content that a machine has anywhere on its disk,
 * need not come. Each piece of 4 KiB comes once. Hash trees, metadata and headers are not counted.
 */
export interface Need {
  /** Bytes that must come into each machine. */
  readonly into: readonly number[]
  /** Bytes that no machine has. They must leave the source once. */
  readonly fromSource: number
  /**
   * The same with whole blocks: a piece that repeats within other blocks counts again, and in each block everything
   * that is not zeros counts.
   */
  readonly fromSourceInBlocks: number
}

/** Compares the disks, as they are before the restore, with the image they are to hold. */
export async function findNeed(image: string, disks: readonly string[], signal: AbortSignal): Promise<Need> {
  const wanted = await granulesOf(image, signal)
  const nowhere = new Set(wanted)
  const into: number[] = []
  for (const disk of disks) {
    const missing = wanted.difference(await granulesOf(disk, signal))
    into.push(missing.size * GRANULE_SIZE_BYTES)
    for (const piece of nowhere) if (!missing.has(piece)) nowhere.delete(piece)
  }
  const blocks = await blocksOf(image, signal)
  for (const disk of disks) for (const block of (await blocksOf(disk, signal)).keys()) blocks.delete(block)
  const inBlocks = [...blocks.values()].reduce((sum, bytes) => sum + bytes, 0)
  return { into, fromSource: nowhere.size * GRANULE_SIZE_BYTES, fromSourceInBlocks: inBlocks }
}

/** Seconds that the slowest of the links needs at its full rate; rates in bits per second. */
export function idealSeconds(need: Need, rates: { readonly machine: number; readonly source: number }): number {
  return Math.max((Math.max(...need.into) * 8) / rates.machine, (need.fromSource * 8) / rates.source)
}

/** Digests of all different blocks of a file, and how many bytes of each are not zeros. */
async function blocksOf(path: string, signal: AbortSignal): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  const zeros = Buffer.alloc(GRANULE_SIZE_BYTES)
  const buffer = Buffer.alloc(DEFAULT_BLOCK_SIZE_BYTES)
  const file = await open(path)
  try {
    for (let offset = 0; ; offset += buffer.byteLength) {
      signal.throwIfAborted()
      const { bytesRead } = await file.read(buffer, 0, buffer.byteLength, offset)
      if (bytesRead === 0) return found
      let bytes = 0
      for (let at = 0; at < bytesRead; at += GRANULE_SIZE_BYTES)
        if (!buffer.subarray(at, at + GRANULE_SIZE_BYTES).equals(zeros)) bytes += GRANULE_SIZE_BYTES
      found.set(hash('sha256', buffer.subarray(0, bytesRead), 'base64'), bytes)
    }
  } finally {
    await file.close()
  }
}

/** Digests of all different granules of a file that are not zeros. */
async function granulesOf(path: string, signal: AbortSignal): Promise<Set<string>> {
  const found = new Set<string>()
  const zero = hash('sha256', Buffer.alloc(GRANULE_SIZE_BYTES), 'base64')
  const buffer = Buffer.alloc(STEP)
  const file = await open(path)
  try {
    for (let offset = 0; ; offset += STEP) {
      signal.throwIfAborted()
      const { bytesRead } = await file.read(buffer, 0, STEP, offset)
      if (bytesRead === 0) break
      for (let at = 0; at < bytesRead; at += GRANULE_SIZE_BYTES)
        found.add(hash('sha256', buffer.subarray(at, Math.min(at + GRANULE_SIZE_BYTES, bytesRead)), 'base64'))
    }
  } finally {
    await file.close()
  }
  found.delete(zero)
  return found
}
