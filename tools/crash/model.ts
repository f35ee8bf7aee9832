import { createHash } from 'node:crypto'
import { buildTree } from '../../node/store/build-tree.ts'
import { type TreeFacts, TreeFile } from '../../node/store/tree-file.ts'
import { TreeStore } from '../../node/store/tree-store.ts'
import { markVerified, type VerifiedManifest } from '../../node/trust/verified-manifest.ts'
import { toHex } from '../../protocol/digest.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { byteCount } from '../../protocol/units.ts'
import { Random } from '../lab/random.ts'
import { MemoryHashPool } from './memory-hash-pool.ts'
import { Power } from './power.ts'
import { PowerCutDevice } from './power-cut-device.ts'

/** Images differ in size: `large` takes a restore several batches. Neither ends with a block, nor with the disk. */
const SHAPES = {
  small: { blockSize: 16 * 1024, size: 159 * 16 * 1024 + 5000, beyond: 40_000, seed: 11 },
  large: { blockSize: 64 * 1024, size: 319 * 64 * 1024 + 777, beyond: 100_000, seed: 12 },
} as const

/** A size of disk and image that runs use. */
export type ModelName = keyof typeof SHAPES

/** One release of the model: content and manifest. */
export interface Release {
  readonly image: Buffer
  readonly manifest: VerifiedManifest
}

/** What a machine is restored to: an image in two releases that have most blocks in common. */
export interface Model {
  readonly name: ModelName
  readonly blockSize: number
  readonly diskSize: number
  readonly releases: readonly [Release, Release]
  /** Has the hash trees of both. */
  readonly trees: TreeStore
}

/** The same model every time; its hash trees are kept in `directory`. */
export async function openModel(directory: string, name: ModelName): Promise<Model> {
  const { blockSize, size, beyond, seed } = SHAPES[name]
  const random = new Random(seed)
  const first = firstImage(size, blockSize, random)
  const images = [first, nextImage(first, blockSize, random)] as const
  const trees = new TreeStore(directory)
  const releases: Release[] = []
  for (const [i, image] of images.entries()) {
    const root = await rootOf(image, blockSize, trees)
    const manifest = { image: name, release: i + 1, size: byteCount(size), blockSize: byteCount(blockSize), root }
    releases.push({
      image,
      manifest: markVerified({ ...manifest, preserve: RangeSet.empty, label: '', time: '2026-01-01T00:00:00.000Z' }),
    })
  }
  const [a, b] = releases as [Release, Release]
  return {
    name,
    blockSize,
    diskSize: size + beyond,
    releases: [a, b],
    trees: await KeptTrees.open(directory, releases),
  }
}

/** Trees whose pages are all in memory: a run that waits for files is not the same the next time. */
class KeptTrees extends TreeStore {
  readonly #kept = new Map<string, TreeFile>()

  static async open(directory: string, releases: readonly Release[]): Promise<KeptTrees> {
    const trees = new KeptTrees(directory)
    for (const { manifest } of releases) {
      const tree = await TreeFile.open(trees.pathOf(manifest), manifest)
      await tree.leaves(0, tree.geometry.blockCount)
      await tree.close()
      tree.close = async () => undefined
      trees.#kept.set(toHex(manifest.root), tree)
    }
    return trees
  }

  override async has(): Promise<boolean> {
    return true
  }

  override async open({ root }: TreeFacts): Promise<TreeFile> {
    return this.#kept.get(toHex(root))!
  }
}

/** Random blocks, some of zeros, some equal to others. */
function firstImage(size: number, blockSize: number, random: Random): Buffer {
  const image = createHash('shake256', { outputLength: size }).update(String(random.seed)).digest()
  const blocks = Math.floor(size / blockSize)
  for (let i = 0; i < blocks / 8; i++) {
    const [to, from] = [random.below(blocks) * blockSize, random.below(blocks) * blockSize]
    if (i % 2 === 0) image.fill(0, to, to + blockSize)
    else image.copyWithin(to, from, from + blockSize)
  }
  return image
}

/** A fifth of the blocks changed in a few bytes, some moved, some zeroed. */
function nextImage(image: Buffer, blockSize: number, random: Random): Buffer {
  const next = Buffer.from(image)
  const blocks = Math.floor(image.byteLength / blockSize)
  for (let i = 0; i < blocks / 5; i++) {
    const [to, from] = [random.below(blocks) * blockSize, random.below(blocks) * blockSize]
    const kind = random.below(8)
    if (kind === 0) next.fill(0, to, to + blockSize)
    else if (kind === 1) image.copy(next, to, from, from + blockSize)
    else next.set(random.bytes(100), to + random.below(blockSize - 100))
  }
  return next
}

async function rootOf(image: Buffer, blockSize: number, trees: TreeStore): Promise<Uint8Array> {
  const device = new PowerCutDevice('image', Buffer.from(image), new Power(new Random(0), Number.POSITIVE_INFINITY))
  const { root } = await buildTree({
    path: '',
    size: image.byteLength,
    blockSize,
    preserve: RangeSet.empty,
    pool: new MemoryHashPool(device),
    trees,
    progress: () => undefined,
    signal: new AbortController().signal,
  })
  return root
}
