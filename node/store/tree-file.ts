import assert from 'node:assert/strict'
import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { DIGEST_SIZE_BYTES, REPEATS_LEVEL } from '../../protocol/constants.ts'
import { type Digest, digestOf, sameBytes, toHex } from '../../protocol/digest.ts'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { pageDigest, TreeGeometry } from '../../protocol/hash-tree.ts'
import { fsyncDirectory, storageError } from '../state/atomic-file.ts'
import { TREE_CACHE_BYTES } from './limits.ts'

/** What is needed to read a tree file and to prove it. */
export interface TreeFacts {
  readonly root: Digest
  readonly size: number
  readonly blockSize: number
  /** Digest of the list of the image's repeats, if it has one. */
  readonly repeats?: Digest
}

/**
 * A stored hash tree, in the layout that `veritysetup --no-superblock` writes. Nothing in the file is trusted: each
 * page is hashed up to the root before its first use, and counts as proven only while it is in the cache. The list of
 * the image's repeats is a file of its own beside it, and is read as the one page of REPEATS_LEVEL. A machine may lack
 * that list.
 */
export class TreeFile {
  readonly geometry: TreeGeometry
  readonly root: Digest
  readonly path: string
  readonly #repeats: Digest | undefined
  readonly #handle: FileHandle
  readonly #cachePages: number
  /** Whether the tree is larger than the cache. */
  readonly #isLarge: boolean
  /** Pages by file offset, least recently used first. A promise is a page that is being proven. */
  readonly #cache = new Map<number, Uint8Array | Promise<Uint8Array>>()

  private constructor(handle: FileHandle, path: string, facts: TreeFacts) {
    this.#handle = handle
    this.path = path
    this.root = facts.root
    this.#repeats = facts.repeats
    this.geometry = new TreeGeometry(facts.size, facts.blockSize)
    this.#isLarge = this.geometry.fileSize > TREE_CACHE_BYTES
    this.#cachePages = Math.max(this.geometry.levels + 1, Math.floor(TREE_CACHE_BYTES / facts.blockSize))
  }

  /** Errors: TREE_CORRUPT if there is no such file. */
  static async open(path: string, facts: TreeFacts): Promise<TreeFile> {
    const handle = await open(path, 'r').catch((cause: unknown) => {
      if (errnoOf(cause) !== 'ENOENT') throw storageError(cause, path)
      throw new MeshError('TREE_CORRUPT', `the hash tree ${path} is missing`, { detail: { path }, cause })
    })
    return new TreeFile(handle, path, facts)
  }

  /** A proven page. It is shared, so callers must not change it. Errors: TREE_CORRUPT with level and index, DISK_IO. */
  async page(level: number, index: number): Promise<Uint8Array> {
    return level === REPEATS_LEVEL ? this.#repeatsPage() : this.#page(level, index)
  }

  /** The proven digest of one block; at once if its page is in the cache. Errors: TREE_CORRUPT, DISK_IO. */
  leaf(index: number): Digest | Promise<Digest> {
    assert(index >= 0 && index < this.geometry.blockCount, `leaf ${index} of ${this.geometry.blockCount}`)
    return this.#digest(0, index)
  }

  /** The digest of an item; the root for the top page; undefined if there is no such item. */
  async digestOf(level: number, index: number): Promise<Digest | undefined> {
    if (level === REPEATS_LEVEL) return index === 0 ? this.#repeats : undefined
    if (level > this.geometry.levels || level < 0) return undefined
    if (index >= (level === 0 ? this.geometry.blockCount : this.geometry.pagesAt(level))) return undefined
    return this.#digest(level, index)
  }

  /** The proven digests of `count` blocks from `first`, packed. */
  async leaves(first: number, count: number): Promise<Uint8Array> {
    assert(first >= 0 && count >= 0 && first + count <= this.geometry.blockCount, `leaves ${first} and ${count} more`)
    if (this.geometry.levels === 0) return this.root.subarray(0, count * DIGEST_SIZE_BYTES)
    const packed = new Uint8Array(count * DIGEST_SIZE_BYTES)
    for (let done = 0; done < count; ) {
      const { index, slot } = this.geometry.parent(0, first + done)!
      const take = Math.min(count - done, this.geometry.digestsPerPage - slot)
      const page = await this.#page(1, index)
      packed.set(page.subarray(slot * DIGEST_SIZE_BYTES, (slot + take) * DIGEST_SIZE_BYTES), done * DIGEST_SIZE_BYTES)
      // A whole page that is read in order is not kept if the tree is larger than the cache: it would push out pages
      // that are needed again.
      if (this.#isLarge && slot + take === this.geometry.digestsPerPage)
        this.#cache.delete(this.geometry.pageOffset(1, index))
      done += take
    }
    return packed
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  /** Reads the list of repeats. It is not kept in the cache, because each machine asks for it once. */
  async #repeatsPage(): Promise<Uint8Array> {
    const digest = this.#repeats
    if (digest === undefined) throw new MeshError('TREE_CORRUPT', `the image of ${this.path} has no list of repeats`)
    const path = repeatsPath(dirname(this.path), digest)
    const page = await readFile(path).catch(() => undefined)
    if (page !== undefined && sameBytes(digestOf(page), digest)) return page
    throw new MeshError('TREE_CORRUPT', `there is no list of repeats at ${path}, or another one`, { detail: { path } })
  }

  #digest(level: number, index: number): Digest | Promise<Digest> {
    const parent = this.geometry.parent(level, index)
    if (parent === undefined) return this.root
    const page = this.#page(parent.level, parent.index)
    if (page instanceof Promise) return page.then((proven) => pageDigest(proven, parent.slot))
    return pageDigest(page, parent.slot)
  }

  #page(level: number, index: number): Uint8Array | Promise<Uint8Array> {
    const offset = this.geometry.pageOffset(level, index)
    const cached = this.#cache.get(offset)
    if (cached !== undefined) {
      this.#cache.delete(offset)
      this.#cache.set(offset, cached)
      return cached
    }
    const loading = this.#load(level, index, offset)
    this.#cache.set(offset, loading)
    loading.then(
      (page) => {
        if (this.#cache.get(offset) === loading) this.#cache.set(offset, page)
      },
      () => {
        if (this.#cache.get(offset) === loading) this.#cache.delete(offset)
      },
    )
    if (this.#cache.size > this.#cachePages) this.#cache.delete(this.#cache.keys().next().value!)
    return loading
  }

  async #load(level: number, index: number, offset: number): Promise<Uint8Array> {
    const expected = await this.digestOf(level, index)
    const page = await readPage(this.#handle, this.path, offset, this.geometry.blockSize)
    if (page === undefined || !sameBytes(digestOf(page), expected!)) {
      throw new MeshError('TREE_CORRUPT', `page ${index} of level ${level} in ${this.path} is damaged`, {
        detail: { path: this.path, level, index },
      })
    }
    return page
  }
}

/** Where the list of repeats with this digest stands. */
export function repeatsPath(directory: string, digest: Digest): string {
  return join(directory, `${toHex(digest)}.repeats`)
}

/** Writes a tree file as `NAME.part`. It gets its final name by {@link commit}. */
export class TreeFileWriter {
  readonly geometry: TreeGeometry
  readonly #handle: FileHandle
  readonly #part: string

  private constructor(handle: FileHandle, part: string, geometry: TreeGeometry) {
    this.#handle = handle
    this.#part = part
    this.geometry = geometry
  }

  /**
   * `resume` keeps the pages that an interrupted writer left. The caller reads them back with {@link read} and hashes
   * them.
   */
  static async create(
    path: string,
    geometry: TreeGeometry,
    options: { resume?: boolean } = {},
  ): Promise<TreeFileWriter> {
    const part = `${path}.part`
    try {
      const handle = await open(part, options.resume === true ? 'a+' : 'w+').then(async (made) => {
        if (options.resume !== true) return made
        // A handle for appending ignores offsets. So it only makes the file, and another handle writes.
        await made.close()
        return open(part, 'r+')
      })
      return new TreeFileWriter(handle, part, geometry)
    } catch (error) {
      throw storageError(error, part)
    }
  }

  async write(level: number, index: number, page: Uint8Array): Promise<void> {
    assert(page.byteLength === this.geometry.blockSize)
    const offset = this.geometry.pageOffset(level, index)
    try {
      // A file system that is nearly full writes a part and refuses the rest.
      for (let done = 0; done < page.byteLength; ) {
        done += (await this.#handle.write(page, done, page.byteLength - done, offset + done)).bytesWritten
      }
    } catch (error) {
      throw storageError(error, this.#part)
    }
  }

  /** A page as it stands in the file, not proven; undefined if the file ends before the page. */
  read(level: number, index: number): Promise<Uint8Array | undefined> {
    return readPage(this.#handle, this.#part, this.geometry.pageOffset(level, index), this.geometry.blockSize)
  }

  /**
   * Makes the tree durable under `path`: fdatasync, rename, fsync of the directory (docs/DURABILITY.md). The caller
   * must have proven the pages; only the top page is compared with `root`, if that is given. Errors: TREE_CORRUPT,
   * DISK_FULL.
   */
  async commit(path: string, root?: Digest): Promise<void> {
    if (root !== undefined) await this.#checkTop(root)
    try {
      await this.#handle.datasync()
      await this.#handle.close()
      await rename(this.#part, path)
      await fsyncDirectory(dirname(path))
    } catch (error) {
      throw storageError(error, path)
    }
  }

  async #checkTop(root: Digest): Promise<void> {
    const level = this.geometry.levels
    if (level === 0) return
    const top = await this.read(level, 0)
    if (top !== undefined && sameBytes(digestOf(top), root)) return
    throw new MeshError('TREE_CORRUPT', `the hash tree in ${this.#part} is not the one it should be`, {
      detail: { path: this.#part, level, index: 0 },
    })
  }

  /** Closes the file. `keep` leaves it for a later writer that resumes. */
  async abandon(options: { keep: boolean }): Promise<void> {
    await this.#handle.close()
    if (!options.keep) await rm(this.#part, { force: true })
  }
}

/** One page of a tree file, unproven; undefined if the file ends before its end. Errors: DISK_IO. */
async function readPage(
  handle: FileHandle,
  path: string,
  offset: number,
  size: number,
): Promise<Uint8Array | undefined> {
  const page = Buffer.allocUnsafeSlow(size)
  try {
    for (let done = 0; done < size; ) {
      const { bytesRead } = await handle.read(page, done, size - done, offset + done)
      if (bytesRead === 0) return undefined
      done += bytesRead
    }
    return page
  } catch (error) {
    throw storageError(error, path)
  }
}
