import { dirname } from 'node:path'
import { onTestFinished } from 'vitest'
import { TreeFile, TreeFileWriter } from '../../node/store/tree-file.ts'
import { digestOf } from '../../protocol/digest.ts'
import { TreeBuilder, TreeGeometry } from '../../protocol/hash-tree.ts'
import { temporaryDirectory } from './temporary.ts'

/** The packed digests of the blocks of `content`, the last one zero-padded. */
export function leavesOf(content: Uint8Array, blockSize: number): Buffer {
  const digests: Uint8Array[] = []
  for (let at = 0; at < content.byteLength; at += blockSize) {
    const block = Buffer.alloc(blockSize)
    block.set(content.subarray(at, at + blockSize))
    digests.push(digestOf(block))
  }
  return Buffer.concat(digests)
}

/** Stores the tree over these leaves, as publishing does, and opens it until the test ends. */
export async function storedTree(
  leaves: Uint8Array,
  image: { size: number; blockSize: number },
  path?: string,
): Promise<TreeFile> {
  const file = path ?? `${await temporaryDirectory()}/stored.tree`
  const geometry = new TreeGeometry(image.size, image.blockSize)
  const pages: { level: number; index: number; page: Uint8Array }[] = []
  const builder = new TreeBuilder(geometry, (level, index, page) => pages.push({ level, index, page }))
  builder.append(leaves)
  const root = builder.finish()
  const writer = await TreeFileWriter.create(`${dirname(file)}/computed`, geometry)
  for (const { level, index, page } of pages) await writer.write(level, index, page)
  await writer.commit(file, root)
  const tree = await TreeFile.open(file, { root, ...image })
  onTestFinished(() => tree.close())
  return tree
}
