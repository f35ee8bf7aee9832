import { setTimeout as sleep } from 'node:timers/promises'
import { Bitmap } from '../../protocol/bitmap.ts'
import { REPEATS_LEVEL } from '../../protocol/constants.ts'
import { type Digest, digestOf, sameBytes } from '../../protocol/digest.ts'
import { pageDigest } from '../../protocol/hash-tree.ts'
import type { ReportProgress } from '../disk/progress.ts'
import type { TreeFacts, TreeFile, TreeFileWriter } from '../store/tree-file.ts'
import type { TreeStore } from '../store/tree-store.ts'
import type { BlockFetcher } from './block-fetcher.ts'
import { REPEATS_WAIT_MS } from './limits.ts'

interface TreeFetchOptions {
  readonly facts: TreeFacts
  readonly trees: TreeStore
  /** Other trees that may be stored here. Pages that they share with this tree are copied. */
  readonly others?: readonly TreeFacts[]
  /** Connects to peers; called only if pages are missing. */
  readonly fetcher: () => Promise<BlockFetcher>
  readonly progress: ReportProgress
  readonly signal: AbortSignal
}

/**
 * Opens the hash tree of a release. If it is not stored here, its pages are fetched from the root down, and each page
 * is proven by the page above it, so that nothing untrusted is ever followed. Releases share most of their pages, so
 * pages of other trees on this machine are copied first. An interrupted fetch leaves its pages for the next one. The
 * list of the image's repeats is fetched with the pages; the tree is as good without it.
 * Returns the tree, and the bytes that came over the network.
 */
export async function ensureTree(options: TreeFetchOptions): Promise<{ tree: TreeFile; received: number }> {
  const { facts, trees } = options
  if (await trees.has(facts)) return { tree: await trees.open(facts), received: 0 }
  const writer = await trees.fetcher(facts)
  const others = await openOthers(options)
  const ended = new AbortController()
  let repeats: Promise<Uint8Array | undefined> | undefined
  let received = 0
  try {
    for (let level = writer.geometry.levels; level >= 1; level--) {
      const wanted = await missingPages(writer, level, others, options)
      if (wanted.count === 0) continue
      repeats ??= fetchRepeats(options, ended.signal)
      received += await fetchPages(writer, level, wanted, options)
    }
    const list = await Promise.race([repeats, sleep(REPEATS_WAIT_MS, undefined, { ref: false })])
    if (list !== undefined) received += await keepRepeats(trees, list)
  } catch (error) {
    await writer.abandon({ keep: true })
    throw error
  } finally {
    ended.abort()
    for (const other of others) await other.close()
  }
  await writer.commit(trees.pathOf(facts), facts.root)
  return { tree: await trees.open(facts), received }
}

/** Fetches the list of repeats; undefined if the machine has the list already, or cannot get it. */
async function fetchRepeats(
  { facts, trees, fetcher, signal }: TreeFetchOptions,
  ended: AbortSignal,
): Promise<Uint8Array | undefined> {
  const { root, blockSize, repeats: digest } = facts
  if (digest === undefined || (await trees.hasRepeats(digest))) return undefined
  const wanted = new Bitmap(1)
  wanted.set(0)
  const request = { root, level: REPEATS_LEVEL, blockSize, wanted, digestOf: () => digest }
  try {
    for await (const { data } of (await fetcher()).fetch(request, AbortSignal.any([signal, ended]))) return data
  } catch {
    // The restore goes on without the list. If the cause matters, it will show when the tree is used.
  }
  return undefined
}

/** Stores the list of repeats, however slow the disk is, and returns its bytes. */
async function keepRepeats(trees: TreeStore, list: Uint8Array): Promise<number> {
  // A disk that cannot be written shows at the tree itself.
  await trees.keepRepeats(list).catch(() => undefined)
  return list.byteLength
}

async function openOthers({ facts, trees, others = [] }: TreeFetchOptions): Promise<TreeFile[]> {
  const opened: TreeFile[] = []
  for (const other of others)
    if (other.blockSize === facts.blockSize && (await trees.has(other))) opened.push(await trees.open(other))
  return opened
}

/** The digest that a page must have. The level above is complete and proven. */
async function digestOfPage(writer: TreeFileWriter, level: number, index: number, root: Digest): Promise<Digest> {
  const parent = writer.geometry.parent(level, index)
  if (parent === undefined) return root
  return Uint8Array.from(pageDigest((await writer.read(parent.level, parent.index))!, parent.slot))
}

/** Pages of a level that are neither in the file from before nor in one of the other trees. */
async function missingPages(
  writer: TreeFileWriter,
  level: number,
  others: readonly TreeFile[],
  { facts }: TreeFetchOptions,
): Promise<Bitmap> {
  const pages = writer.geometry.pagesAt(level)
  const wanted = new Bitmap(pages)
  for (let index = 0; index < pages; index++) {
    const digest = await digestOfPage(writer, level, index, facts.root)
    const present = await writer.read(level, index)
    if (present !== undefined && sameBytes(digestOf(present), digest)) continue
    const copy = await pageOf(others, level, index, digest)
    if (copy === undefined) wanted.set(index)
    else await writer.write(level, index, copy)
  }
  return wanted
}

/** A page with this digest at the same place of another tree. Images mostly change in place. */
async function pageOf(
  trees: readonly TreeFile[],
  level: number,
  index: number,
  digest: Digest,
): Promise<Uint8Array | undefined> {
  for (const tree of trees) {
    // A damaged tree of another release is repaired when that release is restored.
    const here = await tree.digestOf(level, index).catch(() => undefined)
    if (here === undefined || !sameBytes(here, digest)) continue
    const page = await tree.page(level, index).catch(() => undefined)
    if (page !== undefined) return page
  }
  return undefined
}

async function fetchPages(
  writer: TreeFileWriter,
  level: number,
  wanted: Bitmap,
  options: TreeFetchOptions,
): Promise<number> {
  const { geometry } = writer
  const { root } = options.facts
  const digestAt = (index: number): Promise<Digest> => digestOfPage(writer, level, index, root)
  const request = { root, level, blockSize: geometry.blockSize, wanted, digestOf: digestAt }
  let received = 0
  for await (const { index, data } of (await options.fetcher()).fetch(request, options.signal)) {
    await writer.write(level, index, data)
    received += data.byteLength
    options.progress({ phase: 'tree', doneBytes: received, totalBytes: geometry.fileSize })
  }
  return received
}
