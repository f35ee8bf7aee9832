import { access, readdir, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { type Digest, digestOf, toHex } from '../../protocol/digest.ts'
import { TreeGeometry } from '../../protocol/hash-tree.ts'
import { writeFileAtomic } from '../state/atomic-file.ts'
import { repeatsPath, type TreeFacts, TreeFile, TreeFileWriter } from './tree-file.ts'

/** The hash trees a machine keeps, one file each, named by root. */
export class TreeStore {
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
  }

  has(tree: TreeFacts): Promise<boolean> {
    return exists(this.pathOf(tree))
  }

  open(tree: TreeFacts): Promise<TreeFile> {
    return TreeFile.open(this.pathOf(tree), tree)
  }

  /**
   * A writer for a tree whose root is known. Pages that an interrupted writer left are kept. The tree is committed to
   * {@link pathOf}.
   */
  fetcher(tree: TreeFacts): Promise<TreeFileWriter> {
    return TreeFileWriter.create(this.pathOf(tree), new TreeGeometry(tree.size, tree.blockSize), { resume: true })
  }

  /** A writer for a tree that is being computed, so that its root is known only at the end. */
  builder(geometry: TreeGeometry): Promise<TreeFileWriter> {
    return TreeFileWriter.create(join(this.#directory, 'computed'), geometry)
  }

  /** Whether the list of a tree's repeats is here. It may be damaged. */
  hasRepeats(digest: Digest): Promise<boolean> {
    return exists(repeatsPath(this.#directory, digest))
  }

  /** Keeps a list of repeats, durably. Errors: DISK_FULL, DISK_IO. */
  async keepRepeats(page: Uint8Array): Promise<Digest> {
    const digest = digestOf(page)
    await writeFileAtomic(repeatsPath(this.#directory, digest), page)
    return digest
  }

  async remove(tree: TreeFacts): Promise<void> {
    await rm(this.pathOf(tree), { force: true })
  }

  /** Deletes all trees but those with these roots, and all lists of repeats but those of these trees. */
  async collect(keep: readonly TreeFacts[]): Promise<void> {
    const kept = new Set<string>()
    for (const tree of keep) {
      kept.add(basename(this.pathOf(tree)))
      if (tree.repeats !== undefined) kept.add(basename(repeatsPath(this.#directory, tree.repeats)))
    }
    for (const name of await readdir(this.#directory)) {
      if (!kept.has(name.replace(/\.part$/, ''))) await rm(join(this.#directory, name), { force: true })
    }
  }

  pathOf(tree: TreeFacts): string {
    return join(this.#directory, `${toHex(tree.root)}.tree`)
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
