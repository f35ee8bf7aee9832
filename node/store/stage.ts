import assert from 'node:assert/strict'
import { access, constants, type FileHandle, mkdir, open, readFile, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { DIGEST_SIZE_BYTES } from '../../protocol/constants.ts'
import { type Digest, digestOf, sameBytes } from '../../protocol/digest.ts'
import { assertFormat } from '../../protocol/document.ts'
import { isNoDigest, NO_DIGEST } from '../../protocol/hash-tree.ts'
import { fsyncDirectory, storageError } from '../state/atomic-file.ts'
import { STAGE_MAX_BLOCKS, STAGE_RESERVE_BYTES, STAGE_RESERVE_SHARE } from './limits.ts'

/** First bytes of the index: name, version and block size, padded with zeros. */
const HEADER_BYTES = 64
/** Keeps a file that is there, and makes one that is missing. */
const READ_WRITE = constants.O_RDWR | constants.O_CREAT

/**
 * Blocks held outside the disk: those of a coming release until the machine moves to it, and pre-images, the right content of blocks
 * that sessions dirtied before. The file `blocks` has a
 * slot for each block, the file `index` has the digest of what a slot holds (docs/PROTOCOL.md, "The stage"). Data is
 * durable before the index names it. Nothing is trusted: every block is hashed when it is read, so a torn entry, or an
 * entry whose slot was given to another block, counts as missing. Memory: about 100 bytes for each block.
 */
export class Stage {
  readonly blockSize: number
  readonly directory: string
  readonly #blocks: FileHandle
  readonly #index: FileHandle
  /** Slots by digest. */
  readonly #slots = new Map<string, number>()
  readonly #free: number[] = []
  /** Slots in the file. */
  #length = 0
  /** Digests of slots that the index does not name yet. */
  #unnamed = new Map<number, Digest>()

  private constructor(directory: string, blocks: FileHandle, index: FileHandle, blockSize: number) {
    this.directory = directory
    this.#blocks = blocks
    this.#index = index
    this.blockSize = blockSize
  }

  /** Makes the stage if it is missing; one for another block size is emptied. Errors: FORMAT_NEWER, DISK_FULL, DISK_IO, STATE_UNWRITABLE. */
  static async open(directory: string, blockSize: number): Promise<Stage> {
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 })
      await using files = new AsyncDisposableStack()
      const blocks = files.use(await open(join(directory, 'blocks'), READ_WRITE, 0o600))
      const index = files.use(await open(join(directory, 'index'), READ_WRITE, 0o600))
      const stage = new Stage(directory, blocks, index, blockSize)
      await stage.#load()
      // The stage closes them from now on.
      files.move()
      return stage
    } catch (error) {
      throw storageError(error, directory)
    }
  }

  /** The stage if there is one. Errors: as {@link open}. */
  static async openIfThere(directory: string, blockSize: number): Promise<Stage | undefined> {
    const there = await access(join(directory, 'index')).then(
      () => true,
      () => false,
    )
    return there ? Stage.open(directory, blockSize) : undefined
  }

  /** How many blocks a stage holds, as far as its index says, and their bytes; undefined if there is none. Changes nothing. */
  static async peek(directory: string): Promise<{ readonly blocks: number; readonly bytes: number } | undefined> {
    const index = await readFile(join(directory, 'index')).catch(() => undefined)
    const [, blockSize] = /^lab-mesh-stage 1 (\d+)[ \n]/.exec(index?.toString('latin1', 0, HEADER_BYTES) ?? '') ?? []
    if (index === undefined || blockSize === undefined) return undefined
    let blocks = 0
    for (let at = HEADER_BYTES; at + DIGEST_SIZE_BYTES <= index.byteLength; at += DIGEST_SIZE_BYTES)
      if (!isNoDigest(index.subarray(at, at + DIGEST_SIZE_BYTES))) blocks++
    return { blocks, bytes: blocks * Number(blockSize) }
  }

  /** Blocks that are here, as far as the index says; none of them is read for this. */
  get count(): number {
    return this.#slots.size
  }

  has(digest: Digest): boolean {
    return this.#slots.has(keyOf(digest))
  }

  /**
   * Reads and hashes the content with this digest. Undefined if it is not here or is damaged; damaged content is
   * forgotten.
   */
  async read(digest: Digest): Promise<Uint8Array | undefined> {
    const key = keyOf(digest)
    const slot = this.#slots.get(key)
    if (slot === undefined) return undefined
    const block = Buffer.allocUnsafeSlow(this.blockSize)
    const length = await readAt(this.#blocks, block, slot * this.blockSize).catch(() => 0)
    if (length === this.blockSize && sameBytes(digestOf(block), digest)) return block
    if (this.#slots.get(key) === slot) this.#forget(key, slot)
    return undefined
  }

  /** `data` must have this digest. It can be read at once; {@link flush} makes it last. Errors: DISK_FULL, DISK_IO. */
  async add(digest: Digest, data: Uint8Array): Promise<void> {
    assert(data.byteLength === this.blockSize)
    const key = keyOf(digest)
    if (this.#slots.has(key)) return
    const slot = this.#free.pop() ?? this.#length++
    try {
      await this.#write(data, slot)
    } catch (error) {
      this.#free.push(slot)
      throw error
    }
    this.#slots.set(key, slot)
    this.#unnamed.set(slot, Uint8Array.from(digest))
  }

  /** Makes everything that was added durable: data → flush → index → flush. Errors: DISK_FULL, DISK_IO. */
  async flush(): Promise<void> {
    if (this.#unnamed.size === 0) return
    const unnamed = [...this.#unnamed].sort(([a], [b]) => a - b)
    this.#unnamed = new Map()
    try {
      await this.#blocks.datasync()
      for (const [slot, digest] of unnamed) await this.#name(slot, digest)
      await this.#index.datasync()
    } catch (error) {
      throw storageError(error, this.directory)
    }
  }

  /** Reads all blocks and forgets those that are damaged. */
  async check(signal: AbortSignal): Promise<void> {
    for (const key of [...this.#slots.keys()]) {
      if (signal.aborted) return
      await this.read(Buffer.from(key, 'latin1'))
    }
  }

  /** Drops every block that `keep` refuses. A stage that is empty then takes no space. */
  async retain(keep: (digest: Digest) => boolean): Promise<void> {
    for (const [key, slot] of [...this.#slots])
      if (!keep(Buffer.from(key, 'latin1'))) {
        this.#forget(key, slot)
        await this.#name(slot, NO_DIGEST)
      }
    if (this.#slots.size === 0) await this.#clear()
  }

  /** Drops one block. Returns whether it was here. */
  async drop(digest: Digest): Promise<boolean> {
    const key = keyOf(digest)
    const slot = this.#slots.get(key)
    if (slot === undefined) return false
    this.#forget(key, slot)
    await this.#name(slot, NO_DIGEST)
    return true
  }

  /**
   * Moves blocks into free slots further to the front, and gives back the room behind the last one. A moved block is durable in its
   * new slot before the old one goes. Errors: DISK_FULL, DISK_IO.
   */
  async compact(): Promise<void> {
    const free = this.#free.toSorted((a, b) => a - b).values()
    for (const [key, slot] of [...this.#slots].sort(([, a], [, b]) => b - a)) {
      const to = free.next().value
      if (to === undefined || to > slot) break
      const digest = Buffer.from(key, 'latin1')
      const data = await this.read(digest)
      if (data === undefined) continue
      await this.#write(data, to)
      this.#slots.set(key, to)
      this.#unnamed.delete(slot)
      this.#unnamed.set(to, digest)
    }
    await this.flush()
    const used = new Set(this.#slots.values())
    this.#length = used.values().reduce((most, slot) => Math.max(most, slot + 1), 0)
    this.#free.length = 0
    for (let slot = 0; slot < this.#length; slot++) if (!used.has(slot)) this.#free.push(slot)
    try {
      await this.#index.truncate(HEADER_BYTES + this.#length * DIGEST_SIZE_BYTES)
      await this.#blocks.truncate(this.#length * this.blockSize)
    } catch (error) {
      throw storageError(error, this.directory)
    }
  }

  /**
   * How many blocks fit into `limit` bytes while the reserve of the file system stays free. Blocks that are here count
   * among them.
   */
  async capacity(limit: number): Promise<number> {
    const { bavail, blocks, bsize } = await statfs(this.directory)
    const own = this.#length * this.blockSize
    const reserve = Math.min(STAGE_RESERVE_BYTES, blocks * bsize * STAGE_RESERVE_SHARE)
    const most = Math.min(limit, own + Math.max(0, bavail * bsize - reserve))
    return Math.min(STAGE_MAX_BLOCKS, Math.floor(most / this.blockSize))
  }

  /**
   * Flushes and closes the files. A flush that fails is not reported: blocks that are not durable count as missing
   * later.
   */
  async close(): Promise<void> {
    await this.flush().catch(() => undefined)
    await Promise.all([this.#blocks.close(), this.#index.close()])
  }

  #forget(key: string, slot: number): void {
    this.#slots.delete(key)
    this.#unnamed.delete(slot)
    this.#free.push(slot)
  }

  async #write(data: Uint8Array, slot: number): Promise<void> {
    try {
      await writeAt(this.#blocks, data, slot * this.blockSize)
    } catch (error) {
      throw storageError(error, this.directory)
    }
  }

  async #name(slot: number, digest: Digest): Promise<void> {
    await writeAt(this.#index, digest, HEADER_BYTES + slot * DIGEST_SIZE_BYTES)
  }

  async #load(): Promise<void> {
    const { size } = await this.#index.stat()
    const bytes = Buffer.alloc(Math.min(size, HEADER_BYTES + STAGE_MAX_BLOCKS * DIGEST_SIZE_BYTES))
    await readAt(this.#index, bytes, 0)
    if (!this.#isOurs(bytes.toString('latin1', 0, Math.min(size, HEADER_BYTES)))) return this.#clear()
    this.#length = Math.floor((bytes.byteLength - HEADER_BYTES) / DIGEST_SIZE_BYTES)
    for (let slot = 0; slot < this.#length; slot++) {
      const at = HEADER_BYTES + slot * DIGEST_SIZE_BYTES
      const digest = bytes.subarray(at, at + DIGEST_SIZE_BYTES)
      if (isNoDigest(digest) || this.has(digest)) this.#free.push(slot)
      else this.#slots.set(keyOf(digest), slot)
    }
  }

  async #clear(): Promise<void> {
    this.#slots.clear()
    this.#unnamed.clear()
    this.#free.length = 0
    this.#length = 0
    await this.#index.truncate(0)
    await this.#blocks.truncate(0)
    await writeAt(this.#index, this.#header(), 0)
    await fsyncDirectory(this.directory)
  }

  /** What follows the block size in the first line is of a later version, and skipped. Errors: FORMAT_NEWER. */
  #isOurs(header: string): boolean {
    const [, format, blockSize] = /^lab-mesh-stage (\d+)(?: (\d+))?[ \n]/.exec(header) ?? []
    if (format !== undefined) assertFormat(`the stage ${this.directory}`, Number(format))
    return format === '1' && Number(blockSize) === this.blockSize && header.length === HEADER_BYTES
  }

  #header(): Uint8Array {
    const header = Buffer.alloc(HEADER_BYTES)
    header.write(`lab-mesh-stage 1 ${this.blockSize}\n`)
    return header
  }
}

function keyOf(digest: Digest): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).toString('latin1')
}

/** Returns how many bytes the file had there. */
async function readAt(file: FileHandle, into: Uint8Array, position: number): Promise<number> {
  let done = 0
  while (done < into.byteLength) {
    const { bytesRead } = await file.read(into, done, into.byteLength - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength; )
    done += (await file.write(bytes, done, bytes.byteLength - done, position + done)).bytesWritten
}
