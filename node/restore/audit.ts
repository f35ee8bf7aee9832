import { Bitmap } from '../../protocol/bitmap.ts'
import { digestOf, sameBytes } from '../../protocol/digest.ts'
import type { ImageDisk } from '../disk/image-disk.ts'
import type { TreeFile } from '../store/tree-file.ts'
import { AUDIT_MIN_BLOCKS, AUDIT_SHARE } from './limits.ts'

interface AuditOptions {
  readonly disk: ImageDisk
  readonly tree: TreeFile
  /** Blocks that are believed to be right. */
  readonly clean: Bitmap
  /** Random numbers in [0, 1). Nobody who could write to the disk may foresee them. */
  readonly random: () => number
  /** Milliseconds after which the audit ends, once it has looked at the least number of blocks. */
  readonly budgetMs?: number
  readonly signal?: AbortSignal
}

interface AuditResult {
  /** Blocks that were read and hashed. */
  readonly audited: number
  /** A block that is not what it was believed to be. */
  readonly wrong?: number
}

/**
 * Reads and hashes a random sample of the blocks that a log calls clean: 0.5 % of them, and at least 64 (or all, if
 * there are fewer). The audit ends with the first wrong block. Errors: DISK_IO.
 */
export async function audit(options: AuditOptions): Promise<AuditResult> {
  const { disk, tree, budgetMs = Number.POSITIVE_INFINITY, signal } = options
  const begun = performance.now()
  const sample = drawSample(options.clean, options.random)
  let audited = 0
  while (audited < sample.length && signal?.aborted !== true) {
    if (audited > 0 && performance.now() - begun > budgetMs) break
    // Disks with moving heads read faster in ascending order.
    const part = sample.slice(audited, audited + AUDIT_MIN_BLOCKS).sort((a, b) => a - b)
    const blocks = await Promise.all(part.map((index) => disk.readBlock(index)))
    for (const [i, block] of blocks.entries()) {
      audited++
      if (!sameBytes(digestOf(block), await tree.leaf(part[i]!))) return { audited, wrong: part[i]! }
    }
  }
  return { audited }
}

/** The sample in the order of the draw, so that every beginning of it is a fair sample, too. */
function drawSample(clean: Bitmap, random: () => number): number[] {
  const size = Math.max(AUDIT_MIN_BLOCKS, Math.ceil(clean.count * AUDIT_SHARE))
  if (size >= clean.count) return [...clean.values()]
  const drawn = new Bitmap(clean.length)
  const sample: number[] = []
  while (sample.length < size) {
    const index = Math.floor(random() * clean.length)
    if (clean.has(index) && drawn.set(index)) sample.push(index)
  }
  return sample
}
