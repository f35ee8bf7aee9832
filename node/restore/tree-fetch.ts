import { Bitmap } from '../../protocol/bitmap.ts'
import { type Digest, digestOf, sameBytes } from '../../protocol/digest.ts'
import { pageDigest } from '../../protocol/hash-tree.ts'
import type { TreeFacts, TreeFile, TreeFileWriter } from '../store/tree-file.ts'
import type { TreeStore } from '../store/tree-store.ts'
import type { BlockFetcher } from './block-fetcher.ts'
import type { ReportProgress } from './progress.ts'

export interface TreeFetchOptions {
  readonly facts: TreeFacts
  readonly trees: TreeStore
  /** Called only if pages are missing. */
  readonly fetcher: () => Promise<BlockFetcher>
  readonly progress: ReportProgress
  readonly signal: AbortSignal
}

/**
 * Opens the hash tree of a release; if it is not stored here, fetches its pages top-down, each proven by the page above
 * it, so that nothing untrusted is ever followed. An interrupted fetch leaves its pages for the next one.
 * `received` is what came over the network, in bytes.
 */
export async function ensureTree(options: TreeFetchOptions): Promise<{ tree: TreeFile; received: number }> {
  const { facts, trees } = options
  if (await trees.has(facts)) return { tree: await trees.open(facts), received: 0 }
  const writer = await trees.fetcher(facts)
  let received = 0
  try {
    for (let level = writer.geometry.levels; level >= 1; level--) received += await fetchLevel(writer, level, options)
  } catch (error) {
    await writer.abandon({ keep: true })
    throw error
  }
  await writer.commit(trees.pathOf(facts), facts.root)
  return { tree: await trees.open(facts), received }
}

async function fetchLevel(writer: TreeFileWriter, level: number, options: TreeFetchOptions): Promise<number> {
  const { geometry } = writer
  const pages = geometry.pagesAt(level)
  const digestAt = async (index: number): Promise<Digest> => {
    const parent = geometry.parent(level, index)
    if (parent === undefined) return options.facts.root
    // The level above is complete and proven by now.
    return Uint8Array.from(pageDigest((await writer.read(parent.level, parent.index))!, parent.slot))
  }
  const wanted = new Bitmap(pages)
  for (let index = 0; index < pages; index++) {
    const present = await writer.read(level, index)
    if (present === undefined || !sameBytes(digestOf(present), await digestAt(index))) wanted.set(index)
  }
  if (wanted.count === 0) return 0
  const request = { root: options.facts.root, level, blockSize: geometry.blockSize, wanted, digestOf: digestAt }
  let received = 0
  for await (const { index, data } of (await options.fetcher()).fetch(request, options.signal)) {
    await writer.write(level, index, data)
    received += data.byteLength
    options.progress({ phase: 'tree', doneBytes: received, totalBytes: geometry.fileSize })
  }
  return received
}
