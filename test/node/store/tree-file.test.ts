import { open, readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { TREE_CACHE_BYTES } from '../../../node/store/limits.ts'
import { TreeFile, TreeFileWriter } from '../../../node/store/tree-file.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { TreeGeometry } from '../../../protocol/hash-tree.ts'
import { Random } from '../../../tools/lab/random.ts'
import { naiveTree } from '../../support/naive-tree.ts'
import { mount } from '../../support/real-devices.ts'
import { leavesOf, storedTree } from '../../support/stored-tree.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const random = new Random(4)
/** Four digests a page: a deep tree over little data. */
const SMALL = 128

async function flip(path: string, offset: number): Promise<void> {
  const file = await open(path, 'r+')
  const byte = new Uint8Array(1)
  await file.read(byte, 0, 1, offset)
  await file.write(Uint8Array.of(byte[0]! ^ 0x10), 0, 1, offset)
  await file.close()
}

describe('a stored tree', () => {
  it('gives the leaves and pages of the tree, whatever part is asked for', async () => {
    const content = random.bytes(77 * SMALL + 5)
    const leaves = leavesOf(content, SMALL)
    const tree = await storedTree(leaves, { size: content.byteLength, blockSize: SMALL })
    const plain = naiveTree(content, SMALL)
    expect(Buffer.compare(tree.root, plain.root)).toBe(0)
    for (const [i, pages] of plain.levels.entries()) {
      for (const [index, page] of pages.entries()) {
        expect(Buffer.compare(await tree.page(i + 1, index), page)).toBe(0)
        expect(Buffer.compare((await tree.digestOf(i + 1, index))!, digestOf(page))).toBe(0)
      }
    }
    await fc.assert(
      fc.asyncProperty(fc.nat(77), fc.nat(78), async (first, count) => {
        const end = Math.min(first + count, 78)
        const part = await tree.leaves(first, end - first)
        expect(Buffer.compare(part, leaves.subarray(first * 32, end * 32))).toBe(0)
        expect(Buffer.compare(await tree.leaf(first), leaves.subarray(first * 32, first * 32 + 32))).toBe(0)
      }),
    )
    expect(await tree.digestOf(0, 78)).toBeUndefined()
    expect(await tree.digestOf(tree.geometry.levels, 1)).toBeUndefined()
    expect(await tree.digestOf(tree.geometry.levels + 1, 0)).toBeUndefined()
    await expect(tree.leaves(70, 9)).rejects.toThrow('leaves 70')
    expect(() => tree.leaf(78)).toThrow('leaf 78 of 78')
  })

  it('of a single block is its digest', async () => {
    const content = random.bytes(100)
    const leaves = leavesOf(content, SMALL)
    const tree = await storedTree(leaves, { size: 100, blockSize: SMALL })
    expect(Buffer.compare(await tree.leaves(0, 1), leaves)).toBe(0)
    expect((await tree.leaves(1, 0)).byteLength).toBe(0)
    expect((await readFile(tree.path)).byteLength).toBe(0)
  })

  it('says which page any damaged byte is in, and still gives what is not below that page', async () => {
    const content = random.bytes(30 * SMALL)
    const image = { size: content.byteLength, blockSize: SMALL }
    const { path, root, geometry } = await storedTree(leavesOf(content, SMALL), image)
    for (let level = 1; level <= geometry.levels; level++) {
      for (let index = 0; index < geometry.pagesAt(level); index++) {
        const at = geometry.pageOffset(level, index) + random.below(SMALL)
        await flip(path, at)
        const tree = await TreeFile.open(path, { root, ...image })
        const below = geometry.digestsPerPage ** level
        for (let leaf = 0; leaf < geometry.blockCount; leaf++) {
          const reading = tree.leaf(leaf)
          if (Math.floor(leaf / below) !== index) await reading
          else await expect(reading).rejects.toMatchObject({ code: 'TREE_CORRUPT', detail: { path, level, index } })
        }
        await tree.close()
        await flip(path, at)
      }
    }
  })

  it('that is cut short, missing, or of another image is corrupt', async () => {
    const content = random.bytes(30 * SMALL)
    const image = { size: content.byteLength, blockSize: SMALL }
    const { path, root, geometry } = await storedTree(leavesOf(content, SMALL), image)
    const other = await TreeFile.open(path, { root: digestOf(root), ...image })
    await expect(other.leaf(0)).rejects.toMatchObject({
      code: 'TREE_CORRUPT',
      detail: { level: geometry.levels, index: 0 },
    })
    await other.close()
    await truncate(path, geometry.fileSize - 1)
    const cut = await TreeFile.open(path, { root, ...image })
    await cut.leaf(0)
    await expect(cut.leaf(29)).rejects.toMatchObject({ code: 'TREE_CORRUPT', detail: { level: 1, index: 7 } })
    await cut.close()
    await expect(TreeFile.open(`${path}.gone`, { root, ...image })).rejects.toMatchObject({ code: 'TREE_CORRUPT' })
  })

  it('keeps few pages, and proves a page again that it did not keep', async () => {
    const blockSize = 4096
    const pages = TREE_CACHE_BYTES / blockSize + 100
    const leaves = random.bytes(pages * blockSize)
    const image = { size: pages * 128 * blockSize, blockSize }
    const tree = await storedTree(leaves, image)
    await tree.page(1, 0)
    await flip(tree.path, tree.geometry.pageOffset(1, 0))
    // Still the proven copy in memory.
    expect(Buffer.compare(await tree.leaf(0), leaves.subarray(0, 32))).toBe(0)
    for (let index = 1; index < pages; index++) await tree.page(1, index)
    await expect(tree.leaf(0)).rejects.toMatchObject({ code: 'TREE_CORRUPT', detail: { level: 1, index: 0 } })
    // A failure is not remembered.
    await flip(tree.path, tree.geometry.pageOffset(1, 0))
    expect(Buffer.compare(await tree.leaf(0), leaves.subarray(0, 32))).toBe(0)
  })
})

describe('writing a tree', () => {
  const content = random.bytes(20 * SMALL)
  const geometry = new TreeGeometry(content.byteLength, SMALL)
  const plain = naiveTree(content, SMALL)
  const facts = { root: plain.root, size: content.byteLength, blockSize: SMALL }

  async function writeAll(writer: TreeFileWriter): Promise<void> {
    for (const [i, pages] of plain.levels.entries()) {
      for (const [index, page] of pages.entries()) await writer.write(i + 1, index, page)
    }
  }

  it('shows nothing under the final name before it is committed', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'x.tree')
    const writer = await TreeFileWriter.create(path, geometry)
    await writeAll(writer)
    expect(await readdir(directory)).toEqual(['x.tree.part'])
    await writer.commit(path, plain.root)
    expect(await readdir(directory)).toEqual(['x.tree'])
    const tree = await TreeFile.open(path, facts)
    expect(Buffer.compare(await tree.leaves(0, 20), leavesOf(content, SMALL))).toBe(0)
    await tree.close()
  })

  it('goes on with the pages of a writer that was cut short, and gives them unproven', async () => {
    const path = join(await temporaryDirectory(), 'x.tree')
    const top = geometry.levels
    const first = await TreeFileWriter.create(path, geometry, { resume: true })
    await first.write(top, 0, plain.levels[top - 1]![0]!)
    await first.abandon({ keep: true })
    const second = await TreeFileWriter.create(path, geometry, { resume: true })
    expect(Buffer.compare((await second.read(top, 0))!, plain.levels[top - 1]![0]!)).toBe(0)
    expect(await second.read(1, 3)).toBeUndefined()
    await writeAll(second)
    await second.commit(path, plain.root)
    // A writer that does not resume starts from nothing.
    const third = await TreeFileWriter.create(path, geometry)
    expect(await third.read(top, 0)).toBeUndefined()
    await third.abandon({ keep: false })
  })

  it('refuses to commit what has another root', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'x.tree')
    const writer = await TreeFileWriter.create(path, geometry)
    await expect(writer.commit(path, plain.root)).rejects.toMatchObject({ code: 'TREE_CORRUPT' })
    await writeAll(writer)
    await expect(writer.commit(path, digestOf(plain.root))).rejects.toMatchObject({ code: 'TREE_CORRUPT' })
    expect(await readdir(directory)).toEqual(['x.tree.part'])
    await writer.abandon({ keep: false })
    expect(await readdir(directory)).toEqual([])
  })

  it('that finds no space goes on when there is some', async (context) => {
    const directory = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'size=256k', 'none', directory)
    const large = new TreeGeometry(8 * 128 * 128 * 4096, 4096)
    const page = random.bytes(4096)
    await writeFile(join(directory, 'ballast'), new Uint8Array(128 * 1024))
    const path = join(directory, 'x.tree')
    const writer = await TreeFileWriter.create(path, large, { resume: true })
    const fill = async (by: TreeFileWriter): Promise<void> => {
      for (let index = 0; index < 40; index++) await by.write(1, index, page)
    }
    await expect(fill(writer)).rejects.toMatchObject({ code: 'DISK_FULL', detail: { path: `${path}.part` } })
    await writer.abandon({ keep: true })
    await truncate(join(directory, 'ballast'), 0)
    const again = await TreeFileWriter.create(path, large, { resume: true })
    expect(Buffer.compare((await again.read(1, 0))!, page)).toBe(0)
    await fill(again)
    await again.abandon({ keep: false })
  })
})
