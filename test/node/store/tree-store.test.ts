import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { TreeStore } from '../../../node/store/tree-store.ts'
import { REPEATS_LEVEL } from '../../../protocol/constants.ts'
import { digestOf, toHex } from '../../../protocol/digest.ts'
import { TreeGeometry } from '../../../protocol/hash-tree.ts'
import { codeOf } from '../../support/error-code.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** Two digests, one page: the smallest image that has a tree file. */
function twoBlocks(seed: number): { facts: { root: Uint8Array; size: number; blockSize: number }; page: Uint8Array } {
  const page = new Uint8Array(4096)
  page.fill(seed, 0, 64)
  return { facts: { root: digestOf(page), size: 8192, blockSize: 4096 }, page }
}

describe('TreeStore', () => {
  it('has a tree when it is whole', async () => {
    const store = new TreeStore(await temporaryDirectory())
    const { facts, page } = twoBlocks(1)
    const writer = await store.fetcher(facts)
    await writer.write(1, 0, page)
    expect(await store.has(facts)).toBe(false)
    await writer.commit(store.pathOf(facts), facts.root)
    expect(await store.has(facts)).toBe(true)
    const tree = await store.open(facts)
    expect(await tree.leaf(1)).toEqual(Buffer.alloc(32, 1))
    await tree.close()
    await store.remove(facts)
    expect(await store.has(facts)).toBe(false)
  })

  it('resumes a fetched tree, never a computed one', async () => {
    const store = new TreeStore(await temporaryDirectory())
    const { facts, page } = twoBlocks(2)
    for (const kept of [undefined, page]) {
      const writer = await store.fetcher(facts)
      expect(await writer.read(1, 0)).toEqual(kept === undefined ? undefined : Buffer.from(kept))
      await writer.write(1, 0, page)
      await writer.abandon({ keep: true })
    }
    const geometry = new TreeGeometry(facts.size, facts.blockSize)
    for (let i = 0; i < 2; i++) {
      const writer = await store.builder(geometry)
      expect(await writer.read(1, 0)).toBeUndefined()
      await writer.write(1, 0, page)
      await writer.abandon({ keep: true })
    }
  })

  it('keeps the trees that are wanted, and what was begun of them', async () => {
    const directory = await temporaryDirectory()
    const store = new TreeStore(directory)
    const [a, b, c] = [twoBlocks(1), twoBlocks(2), twoBlocks(3)]
    for (const { facts, page } of [a, b]) {
      const writer = await store.fetcher(facts)
      await writer.write(1, 0, page)
      await writer.commit(store.pathOf(facts))
    }
    await (await store.fetcher(c.facts)).abandon({ keep: true })
    await (await store.builder(new TreeGeometry(8192, 4096))).abandon({ keep: true })
    await store.collect([a.facts, c.facts])
    expect((await readdir(directory)).sort()).toEqual(
      [`${toHex(a.facts.root)}.tree`, `${toHex(c.facts.root)}.tree.part`].sort(),
    )
    await store.collect([])
    expect(await readdir(directory)).toEqual([])
  })

  it('keeps the list of repeats of a tree, as long as that is wanted, and gives out no other', async () => {
    const directory = await temporaryDirectory()
    const store = new TreeStore(directory)
    const { facts, page } = twoBlocks(1)
    const writer = await store.fetcher(facts)
    await writer.write(1, 0, page)
    await writer.commit(store.pathOf(facts))
    const list = Buffer.alloc(4096, 9)
    const repeats = await store.keepRepeats(list)
    expect(repeats).toEqual(digestOf(list))
    expect(await store.hasRepeats(repeats)).toBe(true)

    const tree = await store.open({ ...facts, repeats })
    expect(await tree.digestOf(REPEATS_LEVEL, 0)).toEqual(repeats)
    expect(await tree.digestOf(REPEATS_LEVEL, 1)).toBeUndefined()
    expect(await tree.page(REPEATS_LEVEL, 0)).toEqual(list)
    const [name] = (await readdir(directory)).filter((file) => file.endsWith('.repeats'))
    await writeFile(join(directory, name!), Buffer.alloc(4096, 8))
    expect(await codeOf(tree.page(REPEATS_LEVEL, 0))).toBe('TREE_CORRUPT')
    await tree.close()
    const without = await store.open(facts)
    expect(await without.digestOf(REPEATS_LEVEL, 0)).toBeUndefined()
    expect(await codeOf(without.page(REPEATS_LEVEL, 0))).toBe('TREE_CORRUPT')
    await without.close()

    await store.collect([{ ...facts, repeats }])
    expect(await readdir(directory)).toHaveLength(2)
    await store.collect([facts])
    expect(await readdir(directory)).toEqual([`${toHex(facts.root)}.tree`])
  })
})
