import { access, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { toHex } from '../../protocol/digest.ts'
import { TreeGeometry } from '../../protocol/hash-tree.ts'
import { type TreeFacts, TreeFile, TreeFileWriter } from './tree-file.ts'

/** The hash trees a machine keeps, one file each, named by root. */
export class TreeStore {
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
  }

  has(tree: TreeFacts): Promise<boolean> {
    return access(this.pathOf(tree)).then(
      () => true,
      () => false,
    )
  }

  open(tree: TreeFacts): Promise<TreeFile> {
    return TreeFile.open(this.pathOf(tree), tree)
  }

  /** A writer for a tree whose root is known; what an interrupted one left is kept. Commit to {@link pathOf}. */
  fetcher(tree: TreeFacts): Promise<TreeFileWriter> {
    return TreeFileWriter.create(this.pathOf(tree), new TreeGeometry(tree.size, tree.blockSize), { resume: true })
  }

  /** A writer for a tree that is being computed, so that its root is known only at the end. */
  builder(geometry: TreeGeometry): Promise<TreeFileWriter> {
    return TreeFileWriter.create(join(this.#directory, 'computed'), geometry)
  }

  async remove(tree: TreeFacts): Promise<void> {
    await rm(this.pathOf(tree), { force: true })
  }

  /** Deletes all trees but those with these roots. */
  async collect(keep: readonly TreeFacts[]): Promise<void> {
    const kept = new Set(keep.map((tree) => `${toHex(tree.root)}.tree`))
    for (const name of await readdir(this.#directory)) {
      if (!kept.has(name.replace(/\.part$/, ''))) await rm(join(this.#directory, name), { force: true })
    }
  }

  pathOf(tree: TreeFacts): string {
    return join(this.#directory, `${toHex(tree.root)}.tree`)
  }
}
