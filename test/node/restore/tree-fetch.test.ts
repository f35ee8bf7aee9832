import { rename } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { FetchedBlock, FetchRequest } from '../../../node/exchange/ask/fetch-request.ts'
import type { BlockFetcher } from '../../../node/restore/block-fetcher.ts'
import { REPEATS_WAIT_MS } from '../../../node/restore/limits.ts'
import { ensureTree } from '../../../node/restore/tree-fetch.ts'
import type { TreeFile } from '../../../node/store/tree-file.ts'
import { TreeStore } from '../../../node/store/tree-store.ts'
import { REPEATS_LEVEL } from '../../../protocol/constants.ts'
import { type Digest, digestOf } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { Random } from '../../../tools/lab/random.ts'
import { testSeed } from '../../support/seed.ts'
import { storedTree } from '../../support/stored-tree.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const BLOCK = 4096
const BLOCKS = 1000
const DIGESTS_PER_PAGE = BLOCK / 32
const image = { size: BLOCKS * BLOCK, blockSize: BLOCK }
const random = new Random(testSeed('tree fetch'))

/** Gives pages of a tree, and remembers which. */
class PageFetcher implements BlockFetcher {
  readonly ledger = { all: () => [], offenders: () => [] }
  readonly given: string[] = []
  readonly #tree: TreeFile

  constructor(tree: TreeFile) {
    this.#tree = tree
  }

  async *fetch({ level, wanted }: FetchRequest): AsyncGenerator<FetchedBlock> {
    for (const index of wanted.values()) {
      this.given.push(`${level}/${index}`)
      const data = await this.#tree.page(level, index)
      yield { index, data, peerId: 'peer', received: data.byteLength }
    }
  }
}

describe('fetching a hash tree', () => {
  it('brings the list of repeats along, and does without it', async () => {
    const leaves = Buffer.from(random.bytes(BLOCKS * 32))
    const directory = await temporaryDirectory()
    const trees = new TreeStore(directory)
    const target = await storedTree(leaves, image)
    const list = Buffer.alloc(BLOCK, 3)
    const facts = { root: target.root, ...image, repeats: digestOf(list) }
    const pages = new PageFetcher(target)
    let gives: 'list' | 'an error' | 'nothing' = 'list'
    const ended: boolean[] = []
    const fetcher: BlockFetcher = {
      ledger: pages.ledger,
      async *fetch(request, signal) {
        if (request.level !== REPEATS_LEVEL) yield* pages.fetch(request)
        else if (gives === 'list') yield { index: 0, data: list, peerId: 'peer', received: BLOCK }
        else if (gives === 'an error') throw new MeshError('BLOCKS_UNAVAILABLE', 'nobody has it')
        else {
          await new Promise((resolve) => signal.addEventListener('abort', resolve))
          ended.push(signal.aborted)
        }
      },
    }
    const { signal } = new AbortController()
    const options = { facts, trees, fetcher: async () => fetcher, progress: () => undefined, signal }
    const has: boolean[] = []
    for (gives of ['list', 'an error', 'nothing'] as const) {
      const { tree } = await ensureTree(options)
      expect(await tree.leaves(0, BLOCKS)).toEqual(Uint8Array.from(leaves))
      await tree.close()
      has.push(await trees.hasRepeats(facts.repeats))
      await trees.collect([])
    }
    expect(has).toEqual([true, false, false])
    expect(ended).toEqual([true])
  })

  it('keeps a list of repeats that has come, however slow the disk is', async () => {
    class SlowStore extends TreeStore {
      override async keepRepeats(page: Uint8Array): Promise<Digest> {
        await sleep(2 * REPEATS_WAIT_MS)
        return super.keepRepeats(page)
      }
    }
    const trees = new SlowStore(await temporaryDirectory())
    const target = await storedTree(Buffer.from(random.bytes(BLOCKS * 32)), image)
    const list = Buffer.alloc(BLOCK, 3)
    const facts = { root: target.root, ...image, repeats: digestOf(list) }
    const pages = new PageFetcher(target)
    const fetcher: BlockFetcher = {
      ledger: pages.ledger,
      async *fetch(request) {
        if (request.level !== REPEATS_LEVEL) yield* pages.fetch(request)
        else yield { index: 0, data: list, peerId: 'peer', received: BLOCK }
      },
    }
    const { signal } = new AbortController()
    const options = { facts, trees, fetcher: async () => fetcher, progress: () => undefined, signal }
    const { tree, received } = await ensureTree(options)
    await tree.close()
    expect(await trees.hasRepeats(facts.repeats)).toBe(true)
    expect(received).toBe((pages.given.length + 1) * BLOCK)
  })

  it('takes the pages that another release has in common from there, and proves them', async () => {
    const before = Buffer.from(random.bytes(BLOCKS * 32))
    const after = Buffer.from(before)
    after.set(random.bytes(32), 5 * DIGESTS_PER_PAGE * 32)
    const directory = await temporaryDirectory()
    const trees = new TreeStore(directory)
    const old = await storedTree(before, image)
    const target = await storedTree(after, image)
    const facts = { root: target.root, ...image }
    const others = [{ root: old.root, ...image }, facts]
    const fetch = async (): Promise<{ given: string[]; received: number; tree: TreeFile }> => {
      const fetcher = new PageFetcher(target)
      const signal = new AbortController().signal
      const options = { facts, trees, others, fetcher: async () => fetcher, progress: () => undefined, signal }
      const { tree, received } = await ensureTree(options)
      expect(await tree.leaves(0, BLOCKS)).toEqual(Uint8Array.from(after))
      await tree.close()
      return { given: fetcher.given, received, tree }
    }
    const { given: all } = await fetch()
    expect(all).toHaveLength(Math.ceil(BLOCKS / DIGESTS_PER_PAGE) + 1)
    await trees.remove(facts)
    await rename(old.path, trees.pathOf(others[0]!))
    const { given, received } = await fetch()
    expect(given).toEqual(['2/0', '1/5'])
    expect(received).toBe(2 * BLOCK)
  })
})
