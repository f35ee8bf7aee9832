import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { HashPool } from '../../../node/disk/hash-pool.ts'
import { buildTree } from '../../../node/store/build-tree.ts'
import { TreeStore } from '../../../node/store/tree-store.ts'
import { toHex } from '../../../protocol/digest.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { Random } from '../../../tools/lab/random.ts'
import { hasTool, runTool } from '../../../tools/lab/run-tool.ts'

const hasVerity = await hasTool('veritysetup')
if (!hasVerity)
  console.warn('SKIPPED: veritysetup is missing (Debian package cryptsetup-bin), so no outside judge of the tree')

/** Blocks around the edges of pages: a 4096-byte page holds 128 digests. */
const SIZES: readonly (readonly [blocks: number, blockSize: number, tail: number])[] = [
  [2, 4096, 0],
  [2, 4096, 1],
  [127, 4096, 0],
  [128, 4096, 0],
  [129, 4096, 0],
  [129, 4096, 4095],
  [128 * 128, 4096, 0],
  [128 * 128 + 1, 4096, 17],
  [3, 8192, 100],
  [257, 16384, 0],
  [2, 65536, 0],
  [70, 65536, 1234],
  [2, 524288, 5],
]

describe.skipIf(!hasVerity)('veritysetup', () => {
  let dir: string
  let pool: HashPool
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'mesh-verity-'))
    pool = new HashPool()
  })
  afterAll(async () => {
    await pool.close()
    await rm(dir, { recursive: true })
  })

  it.each(SIZES)('agrees on %i blocks of %i bytes with %i bytes in the last', async (blocks, blockSize, tail) => {
    const size = tail === 0 ? blocks * blockSize : (blocks - 1) * blockSize + tail
    const data = new Random(blocks).bytes(size)
    data.fill(0, 0, blockSize)
    const [image, padded, judged] = [join(dir, 'image'), join(dir, 'padded'), join(dir, 'judged')]
    await writeFile(image, data)
    await writeFile(padded, Buffer.concat([data, Buffer.alloc(blocks * blockSize - size)]))
    await writeFile(judged, '')
    const shape = [
      '--no-superblock',
      '--salt=-',
      '--hash=sha256',
      `--data-block-size=${blockSize}`,
      `--hash-block-size=${blockSize}`,
    ]
    const printed = await runTool('veritysetup', ['format', ...shape, padded, judged])

    const trees = new TreeStore(dir)
    const progress = (): void => undefined
    const { signal } = new AbortController()
    const tree = await buildTree({
      path: image,
      size,
      blockSize,
      preserve: RangeSet.empty,
      pool,
      trees,
      progress,
      signal,
    })
    expect(/Root hash:\s+(\w+)/.exec(printed)?.[1]).toBe(toHex(tree.root))
    expect((await readFile(trees.pathOf(tree))).equals(await readFile(judged))).toBe(true)
    await runTool('veritysetup', ['verify', ...shape, padded, trees.pathOf(tree), toHex(tree.root)])
  })
})
