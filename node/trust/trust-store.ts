/**
 * The folder node/trust decides what is believed, by The Update Framework (https://theupdateframework.io): the roles root, targets,
 * snapshot and timestamp, and one more that signs the member list.
 * - `trust-store` is the metadata in force, `trusted-view` what they say, `generations` how they lie on the disk.
 * - `metadata-update` takes newer metadata from a peer; `verified-manifest` is a release that only a check can make.
 * - `site-signer` is the master's pen, with `site-keys` and `key-change`; `create-site` makes the first metadata; `master-term` tells two masters apart.
 * - `members` is the list it signs; `invitations` and `approvals` let machines into the list, `removals` keep keys out of it.
 * - `sealed-file` is what a passphrase protects: a backup, or a key (`key-file`).
 * - `machine-key` is the key of this machine, which signs receipts and proves who it is.
 */

import assert from 'node:assert/strict'
import { cp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Digest, digestOf, sameBytes } from '../../protocol/digest.ts'
import { errnoOf, isMeshError, MeshError } from '../../protocol/errors.ts'
import { natural, object } from '../../protocol/json-shape.ts'
import { formatTime } from '../../protocol/local-time.ts'
import { storageError } from '../state/atomic-file.ts'
import { readStored } from '../state/stored-document.ts'
import { currentGeneration, nextGeneration, removeOtherGenerations } from './generations.ts'
import { type FetchMetadata, updateMetadata } from './metadata-update.ts'
import { contradicts, loadRoles, loadView, type SignedRoles, type TrustView } from './trusted-view.ts'

/** The earliest time that a correct clock can show: this code is younger. */
export const EARLIEST_CLOCK_MS = Date.parse('2026-01-01T00:00:00Z')

/** Times that a refresh starts again because the peer's own metadata changed meanwhile: a whole lab may be joining. */
const MAX_REFRESH_TRIES = 20
/** Times that a reading starts again because another process made the next generation. */
const MAX_OPEN_TRIES = 5

const isVersioned = object({ signed: object({ version: natural() }) })

interface TrustStoreOptions {
  /** Unix ms. @default Date.now */
  readonly now?: () => number
  /** This machine signs for the site itself: it takes nothing that contradicts what it has signed. @default false */
  readonly signs?: boolean
}

/**
 * The metadata that this machine trusts (The Update Framework): who signs, which releases exist, who is a member. It is
 * kept as generations on the disk that are switched atomically. It can be refreshed from any peer, because signatures
 * prove everything.
 */
export class TrustStore {
  readonly #directory: string
  readonly #now: () => number
  readonly #listeners = new Set<() => void>()
  #signs: boolean
  #generation: string
  #view: TrustView
  /**
   * Changes take turns. Refreshes take turns of their own, because they wait for peers and must not hold up changes.
   */
  #changing: Promise<unknown> = Promise.resolve()
  #refreshing: Promise<unknown> = Promise.resolve()

  private constructor(directory: string, generation: string, view: TrustView, options: TrustStoreOptions) {
    this.#directory = directory
    this.#generation = generation
    this.#view = view
    this.#now = options.now ?? Date.now
    this.#signs = options.signs ?? false
  }

  /**
   * Opens the trusted metadata and proves it again; expired metadata is opened, too. Errors: STATE_CORRUPT naming the
   * file.
   */
  static async open(directory: string, options: TrustStoreOptions = {}): Promise<TrustStore> {
    return ofCurrent(
      directory,
      async (generation) => new TrustStore(directory, generation, await loadView(generation), options),
    )
  }

  /**
   * First contact with a site: takes the root metadata whose SHA-256 is `siteId` (it came with the join token) and
   * everything it signs from one peer. Nothing is kept unless all of it holds. Errors as {@link refresh}.
   */
  static async join(
    directory: string,
    siteId: Digest,
    fetch: FetchMetadata,
    options: TrustStoreOptions = {},
  ): Promise<TrustStore> {
    const now = options.now ?? Date.now
    requireClock(now)
    assert((await currentGeneration(directory)) === undefined, `${directory} trusts a site already`)
    await whileItMoves(() =>
      nextGeneration(directory, async (scratch) => {
        const root = await fetch('1.root.json')
        if (root === undefined || !sameBytes(digestOf(root), siteId)) {
          throw new MeshError('METADATA_INVALID', 'the master does not have the root metadata that the token names')
        }
        await writeFile(join(scratch, '1.root.json'), root)
        await writeFile(join(scratch, 'root.json'), root)
        await updateMetadata(scratch, fetch, { now })
        return offeredView(scratch)
      }),
    )
    return TrustStore.open(directory, options)
  }

  view(): TrustView {
    return this.#view
  }

  get siteId(): Digest {
    return this.#view.siteId
  }

  /** The roles in force, read and proven again. Errors: STATE_CORRUPT. */
  roles(): Promise<SignedRoles> {
    return this.#inTurn(() => ofCurrent(this.#directory, loadRoles))
  }

  /**
   * Takes newer metadata from a peer, if it is valid; returns false if it is not newer. Whatever goes wrong, the
   * metadata trusted before stays. Errors: METADATA_EXPIRED, METADATA_ROLLBACK, METADATA_FORKED, METADATA_INVALID, MANIFEST_INVALID
   * (signed, but not understood), FORMAT_NEWER, CLOCK_WRONG, DISK_FULL, and those of `fetch`, which has to set its own deadline.
   */
  refresh(fetch: FetchMetadata): Promise<boolean> {
    const turn = this.#refreshing.then(() => whileItMoves(() => this.#refreshOnce(fetch)))
    this.#refreshing = turn.catch(() => undefined)
    return turn
  }

  /**
   * Whether these bytes, which a peer calls its timestamp.json, prove that somebody else signs for this site: they have the version of
   * the one in force here, a right signature, and other content. One master never signs two of a version.
   */
  provesFork(bytes: Uint8Array): Promise<boolean> {
    return this.#inTurn(() => contradicts(this.#generation, bytes))
  }

  /** From now on what others have signed by the keys of this machine is taken all the same. */
  takeForks(): void {
    this.#signs = false
  }

  /**
   * Makes the next generation, one change at a time ({@link nextGeneration}). `fill` returns what the directory then
   * holds, proven. Only this class and the site's signer call it.
   */
  change(fill: (scratch: string) => Promise<TrustView | undefined>): Promise<boolean> {
    return this.#inTurn(async () => {
      const next = await nextGeneration(this.#directory, fill)
      if (next === undefined) return false
      this.#view = next.content
      this.#generation = next.path
      // The old generation is removed last, because it was served until here. If it cannot be removed, the next change
      // does it.
      await removeOtherGenerations(this.#directory, next.path).catch(() => undefined)
      for (const listener of this.#listeners) listener()
      return true
    })
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * Bytes of a metadata file under its name on the wire: `N.root.json`, `timestamp.json`, `N.snapshot.json`,
   * `N.targets.json`, `N.members.json`, `N.images-PREFIX.json`, `targets/SHA256`. Undefined for any other name and for versions not in force.
   */
  async file(name: string): Promise<Uint8Array | undefined> {
    const versioned = /^(\d{1,10})\.(snapshot|targets|members|images-[a-z0-9-]{1,40})\.json$/.exec(name)
    if (versioned === null && !/^(\d{1,10}\.root\.json|timestamp\.json|targets\/[0-9a-f]{64})$/.test(name))
      return undefined
    const file = versioned === null ? name : `${versioned[2]}.json`
    const bytes = await this.#read(file)
    if (bytes === undefined || versioned === null) return bytes
    const { signed } = readStored(file, isVersioned, bytes)
    return signed.version === Number(versioned[1]) ? bytes : undefined
  }

  async #read(file: string): Promise<Buffer | undefined> {
    for (;;) {
      const generation = this.#generation
      const bytes = await readFile(join(generation, file)).catch((error: unknown) => {
        if (errnoOf(error) === 'ENOENT') return undefined
        throw error
      })
      // The file may be missing only because the next generation has taken the place of this one.
      if (bytes !== undefined || generation === this.#generation) return bytes
    }
  }

  /**
   * Fetches into a directory of its own first. When its turn comes, it decides from what was fetched and what is then
   * in force.
   */
  async #refreshOnce(fetch: FetchMetadata): Promise<boolean> {
    requireClock(this.#now)
    const received = new Map<string, Uint8Array | undefined>()
    const offer = join(this.#directory, 'offer')
    try {
      await this.#inTurn(async () => {
        // A crash may have left such a directory.
        await rm(offer, { recursive: true, force: true })
        await cp(this.#generation, offer, { recursive: true })
      })
      const keep: FetchMetadata = async (name) => {
        const bytes = await fetch(name)
        received.set(name, bytes)
        return bytes
      }
      if ((await this.#take(offer, keep)) === undefined) return false
    } catch (error) {
      throw storageError(error, offer)
    } finally {
      await rm(offer, { recursive: true, force: true })
    }
    return this.change((scratch) => this.#take(scratch, async (name) => received.get(name)))
  }

  /** Brings a copy of the metadata in force up to date; undefined if nothing is newer. */
  async #take(scratch: string, fetch: FetchMetadata): Promise<TrustView | undefined> {
    const heads = (): Promise<Buffer[]> =>
      Promise.all(['root.json', 'timestamp.json'].map((name) => readFile(join(scratch, name))))
    const before = Buffer.concat(await heads())
    const releasedAt = newestReleaseTime(this.#view)
    await updateMetadata(scratch, fetch, { now: this.#now, ...(releasedAt === undefined ? {} : { releasedAt }) })
    const view = await offeredView(scratch)
    refuseRollback(this.#view, view)
    refuseFork(this.#view, view, this.#signs)
    return before.equals(Buffer.concat(await heads())) ? undefined : view
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#changing.then(run)
    this.#changing = turn.catch(() => undefined)
    return turn
  }
}

/**
 * Reads the generation in force. A reader without the lock may find it gone, because the holder of the lock made the next one: then it
 * reads that. Errors: STATE_CORRUPT, and those of `read`.
 */
async function ofCurrent<T>(directory: string, read: (generation: string) => Promise<T>): Promise<T> {
  for (let tries = MAX_OPEN_TRIES; ; tries--) {
    const generation = await currentGeneration(directory)
    if (generation === undefined) throw new MeshError('STATE_CORRUPT', `${directory} holds no trusted metadata`)
    try {
      return await read(generation)
    } catch (error) {
      if (tries === 1 || (await currentGeneration(directory)) === generation) throw error
    }
  }
}

/** Refuses to judge metadata by a clock from before this code was written: nothing would ever look expired. */
function requireClock(now: () => number): void {
  if (now() >= EARLIEST_CLOCK_MS) return
  throw new MeshError('CLOCK_WRONG', `the clock of this machine says ${formatTime(now())}`)
}

/**
 * Tries again if the peer lacks a file that its own metadata named a moment ago: it has changed its metadata meanwhile.
 */
async function whileItMoves<T>(run: () => Promise<T>): Promise<T> {
  for (let tries = MAX_REFRESH_TRIES; ; tries--) {
    try {
      return await run()
    } catch (error) {
      if (tries === 1 || !isMeshError(error, 'METADATA_INVALID') || error.detail.missing === undefined) throw error
    }
  }
}

/** Reads offered metadata. It is signed, so if it cannot be understood, this machine's state is not damaged. */
async function offeredView(scratch: string): Promise<TrustView> {
  try {
    return await loadView(scratch)
  } catch (error) {
    if (!isMeshError(error, 'STATE_CORRUPT')) throw error
    if (isMeshError(error.cause)) throw error.cause
    const why = error.cause instanceof Error ? error.cause.message : error.message
    throw new MeshError('METADATA_INVALID', `metadata was refused: ${why}`, { cause: error })
  }
}

/** Refuses a generation in which the newest release of an image is older, whatever the versions of the metadata say. */
function refuseRollback(before: TrustView, after: TrustView): void {
  for (const image of before.images) {
    const [had, offered] = [before.newest(image)?.release ?? 0, after.newest(image)?.release ?? 0]
    if (offered < had) {
      throw new MeshError(
        'METADATA_ROLLBACK',
        `a peer offers release ${offered} of ${image}; this machine has accepted ${had}`,
      )
    }
  }
}

/**
 * Refuses a generation in which a release has other content than the one of that number that is trusted here: two machines sign for the
 * site. A higher release settles that for all that do not sign themselves.
 */
function refuseFork(before: TrustView, after: TrustView, signs: boolean): void {
  for (const image of before.images) {
    const newest = before.newest(image)?.release ?? 0
    if (!signs && (after.newest(image)?.release ?? 0) > newest) continue
    for (const { release, root } of before.releases(image)) {
      const other = after.release(image, release)
      if (other === undefined || sameBytes(other.root, root)) continue
      throw new MeshError('METADATA_FORKED', `release ${release} of ${image} was signed twice, with other content`)
    }
  }
}

function newestReleaseTime(view: TrustView): number | undefined {
  const times = view.images.flatMap((image) => Date.parse(view.newest(image)?.time ?? ''))
  return times.length === 0 ? undefined : Math.max(...times)
}
