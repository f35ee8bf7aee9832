import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Fetcher, Updater } from 'tuf-js'
import tufErrors from 'tuf-js/dist/error.js'
import { MAX_METADATA_FILE_BYTES } from '../../protocol/constants.ts'
import { type Digest, digestOf, sameBytes, toHex } from '../../protocol/digest.ts'
import { errnoOf, isMeshError, MeshError } from '../../protocol/errors.ts'
import { currentGeneration, nextGeneration } from './generations.ts'
import { loadRoles, loadView, MEMBERS_TARGET, type TrustView, targetDigest } from './trusted-view.ts'

/** Fetches one metadata file by its name on the wire; undefined if the peer has no such file. */
export type FetchMetadata = (name: string) => Promise<Uint8Array | undefined>

/** tuf-js asks for URLs; only the part behind this base means something here. */
const BASE_URL = 'mesh://metadata'
/** No machine that runs this code has a clock before this moment. */
export const EARLIEST_CLOCK_MS = Date.parse('2026-01-01T00:00:00Z')

/**
 * The metadata this machine trusts (The Update Framework): who signs, which releases exist, who is a member. Kept as
 * generations on disk that are switched atomically; refreshed from any peer, since the signatures prove everything.
 */
export class TrustStore {
  readonly #directory: string
  readonly #listeners = new Set<() => void>()
  #generation: string
  #view: TrustView
  #last: Promise<unknown> = Promise.resolve()

  private constructor(directory: string, generation: string, view: TrustView) {
    this.#directory = directory
    this.#generation = generation
    this.#view = view
  }

  /** Opens what is trusted, proving it again. Errors: STATE_CORRUPT. */
  static async open(directory: string): Promise<TrustStore> {
    const generation = await currentGeneration(directory)
    if (generation === undefined) throw new MeshError('STATE_CORRUPT', `${directory} holds no trusted metadata`)
    return new TrustStore(directory, generation, await loadView(generation))
  }

  /**
   * First contact with a site: takes the root metadata whose SHA-256 is `siteId` (it came with the join token) and
   * everything it signs from one peer. Nothing is kept unless all of it holds. Errors as {@link refresh}.
   */
  static async join(directory: string, siteId: Digest, fetch: FetchMetadata): Promise<TrustStore> {
    await nextGeneration(directory, async (scratch) => {
      const root = await fetch('1.root.json')
      if (root === undefined || !sameBytes(digestOf(root), siteId)) {
        throw new MeshError('METADATA_INVALID', 'the master does not have the root metadata that the token names')
      }
      await mkdir(join(scratch, 'targets'), { recursive: true })
      await writeFile(join(scratch, '1.root.json'), root)
      await writeFile(join(scratch, 'root.json'), root)
      return update(scratch, fetch)
    })
    return TrustStore.open(directory)
  }

  view(): TrustView {
    return this.#view
  }

  get siteId(): Digest {
    return this.#view.siteId
  }

  /**
   * Takes newer metadata from a peer, if it is valid; false if it is not newer. Whatever goes wrong, what was trusted
   * before stays. Errors: METADATA_EXPIRED, METADATA_ROLLBACK, METADATA_INVALID, CLOCK_WRONG, and those of `fetch`.
   */
  refresh(fetch: FetchMetadata): Promise<boolean> {
    return this.change(async (scratch) => {
      const before = await readFile(join(scratch, 'timestamp.json'))
      await update(scratch, fetch)
      refuseRollback(this.#view, await loadView(scratch))
      return !sameBytes(before, await readFile(join(scratch, 'timestamp.json')))
    })
  }

  /** Makes the next generation, one change at a time; see {@link nextGeneration}. For this class and the site's signer. */
  change(fill: (scratch: string) => Promise<boolean>): Promise<boolean> {
    const turn = this.#last.then(async () => {
      const generation = await nextGeneration(this.#directory, fill)
      if (generation === undefined) return false
      this.#view = await loadView(generation)
      this.#generation = generation
      for (const listener of this.#listeners) listener()
      return true
    })
    this.#last = turn.catch(() => undefined)
    return turn
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * Bytes of a metadata file under its name on the wire: `N.root.json`, `timestamp.json`, `N.snapshot.json`,
   * `N.targets.json`, `N.members.json`, `targets/SHA256`. Undefined for any other name and for versions not in force.
   */
  async file(name: string): Promise<Uint8Array | undefined> {
    const versioned = /^(\d+)\.(snapshot|targets|members)\.json$/.exec(name)
    if (versioned === null && !/^(\d+\.root\.json|timestamp\.json|targets\/[0-9a-f]{64})$/.test(name)) return undefined
    const file = versioned === null ? name : `${versioned[2]}.json`
    const bytes = await readFile(join(this.#generation, file)).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    })
    if (bytes === undefined || versioned === null) return bytes
    const { signed } = JSON.parse(bytes.toString('utf8')) as { signed: { version: number } }
    return signed.version === Number(versioned[1]) ? bytes : undefined
  }
}

/** Runs the TUF client workflow on a scratch generation, then fetches the targets that are new. */
async function update(scratch: string, fetch: FetchMetadata): Promise<boolean> {
  const roots = new Map<string, Uint8Array>()
  const fetcher = new PeerFetcher(async (name) => {
    const bytes = await fetch(name)
    if (bytes !== undefined && /^\d+\.root\.json$/.test(name)) roots.set(name, bytes)
    return bytes
  })
  try {
    const updater = new Updater({ metadataDir: scratch, metadataBaseUrl: BASE_URL, fetcher })
    await updater.refresh()
    if ((await updater.getTargetInfo(MEMBERS_TARGET)) === undefined) throw new Error('no member list is signed')
    for (const [name, bytes] of roots) await writeFile(join(scratch, name), bytes)
    const roles = await loadRoles(scratch)
    for (const role of [roles.targets, roles.members]) {
      for (const target of Object.values(role.signed.targets))
        await fetchTarget(scratch, target.length, targetDigest(target), fetch)
    }
    return true
  } catch (error) {
    throw asMeshError(error)
  }
}

async function fetchTarget(scratch: string, length: number, digest: string, fetch: FetchMetadata): Promise<void> {
  const path = join(scratch, 'targets', digest)
  const present = await readFile(path).catch(() => undefined)
  if (present !== undefined && toHex(digestOf(present)) === digest) return
  const bytes = await fetch(`targets/${digest}`)
  if (bytes === undefined || bytes.byteLength !== length || toHex(digestOf(bytes)) !== digest) {
    throw new MeshError('METADATA_INVALID', `the peer sent no or wrong content for target ${digest}`)
  }
  await writeFile(path, bytes)
}

/** The newest release of every image only ever grows, whatever the metadata versions say. */
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

class PeerFetcher implements Fetcher {
  readonly #fetch: FetchMetadata

  constructor(fetch: FetchMetadata) {
    this.#fetch = fetch
  }

  async downloadBytes(url: string, maxLength: number): Promise<Buffer> {
    const name = url.slice(BASE_URL.length + 1)
    const bytes = await this.#fetch(name)
    if (bytes === undefined) throw new tufErrors.DownloadHTTPError(`the peer has no ${name}`, 404)
    if (bytes.byteLength > Math.min(maxLength, MAX_METADATA_FILE_BYTES)) {
      throw new tufErrors.DownloadLengthMismatchError(`${name} has ${bytes.byteLength} bytes`)
    }
    return Buffer.from(bytes)
  }

  downloadFile<T>(): Promise<T> {
    throw new Error('targets are fetched by the trust store')
  }
}

/** tuf-js wraps what went wrong into the text of other errors, so the text decides. */
function asMeshError(error: unknown): unknown {
  if (isMeshError(error)) return error
  if (errnoOf(error) !== undefined) return error
  const text = error instanceof Error ? error.message : String(error)
  if (/expired/i.test(text)) return expired(text, error)
  if (/less than current version|Expected version/i.test(text)) {
    return new MeshError('METADATA_ROLLBACK', `older metadata was refused: ${text}`, { cause: error })
  }
  return new MeshError('METADATA_INVALID', `metadata was refused: ${text}`, { cause: error })
}

function expired(text: string, cause: unknown): MeshError {
  const clock = new Date().toISOString()
  if (Date.now() < EARLIEST_CLOCK_MS) {
    return new MeshError('CLOCK_WRONG', `the clock of this machine says ${clock}`, { cause })
  }
  return new MeshError('METADATA_EXPIRED', `${text}; the clock of this machine says ${clock}`, { cause })
}
