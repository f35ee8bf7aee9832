import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Metadata, MetadataKind } from '@tufjs/models'
import { type Fetcher, Updater } from 'tuf-js'
import tufErrors from 'tuf-js/dist/error.js'
import { MAX_METADATA_FILE_BYTES, MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { digestOf, toHex } from '../../protocol/digest.ts'
import { readDocument } from '../../protocol/document.ts'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { object, text } from '../../protocol/json-shape.ts'
import { formatTime } from '../../protocol/local-time.ts'
import { storageError } from '../state/atomic-file.ts'
import {
  loadRoles,
  MEMBERS_TARGET,
  type PrefixRole,
  parseMetadata,
  prefixPath,
  prefixRoles,
  removeUnnamedTargets,
  targetDigest,
  targetsOf,
} from './trusted-view.ts'

/** Fetches one metadata file by its name on the wire; undefined if the peer has no such file. */
export type FetchMetadata = (name: string) => Promise<Uint8Array | undefined>

/** tuf-js asks for URLs. Only the part behind this base has a meaning. */
const BASE_URL = 'mesh://metadata'
const ROOT_FILE = /^\d+\.root\.json$/
/** Characters of a peer's text that go into a message: the message ends on somebody's terminal. */
const MAX_REASON_CHARACTERS = 300

/**
 * Runs the TUF client workflow on a scratch generation, which tuf-js writes file by file, then fetches the targets that
 * are new. Everything in the scratch directory is proven afterwards; its targets are not decoded. Errors:
 * METADATA_EXPIRED, METADATA_ROLLBACK, METADATA_INVALID (its detail has `missing` if the peer lacks a file that its own
 * metadata names), those of `fetch`, DISK_FULL, DISK_IO.
 */
export async function updateMetadata(
  scratch: string,
  fetch: FetchMetadata,
  options: { now: () => number; releasedAt?: number },
): Promise<void> {
  const files = new PeerFiles(fetch)
  try {
    const updater = new Updater({ metadataDir: scratch, metadataBaseUrl: BASE_URL, fetcher: files })
    await updater.refresh()
    if ((await updater.getTargetInfo(MEMBERS_TARGET)) === undefined) throw new Error('no member list is signed')
    for (const role of await delegatedRoles(scratch)) await updater.getTargetInfo(prefixPath(role).replaceAll('*', '0'))
    // tuf-js keeps only the newest root. Peers that trust an older root need all roots in between.
    for (const [name, bytes] of files.received) if (ROOT_FILE.test(name)) await writeFile(join(scratch, name), bytes)
    const roles = await loadRoles(scratch)
    for (const target of targetsOf(roles)) {
      await fetchTarget(join(scratch, 'targets'), target.length, targetDigest(target), files)
    }
    await removeUnnamedTargets(scratch, roles)
  } catch (error) {
    // tuf-js turns an error of its fetcher into text, so the error itself is thrown here.
    if (files.failure !== undefined) throw files.failure
    throw await refusal(error, scratch, files, options)
  }
}

/** The roles to which the metadata that tuf-js has checked delegate images. tuf-js fetches one when it looks for a path of that role. */
async function delegatedRoles(scratch: string): Promise<PrefixRole[]> {
  const [targets, snapshot] = await Promise.all(
    ['targets.json', 'snapshot.json'].map((name) => readFile(join(scratch, name))),
  )
  return prefixRoles(
    Metadata.fromJSON(MetadataKind.Targets, parseMetadata(targets!)).signed,
    Metadata.fromJSON(MetadataKind.Snapshot, parseMetadata(snapshot!)).signed,
  )
}

async function fetchTarget(directory: string, length: number, digest: string, files: PeerFiles): Promise<void> {
  const path = join(directory, digest)
  const present = await readFile(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  })
  if (present !== undefined && toHex(digestOf(present)) === digest) return
  const bytes = await files.get(`targets/${digest}`, length)
  if (bytes.byteLength !== length || toHex(digestOf(bytes)) !== digest) {
    throw new MeshError('METADATA_INVALID', `the peer sent other content for target ${digest}`)
  }
  await writeFile(path, bytes)
}

/** Fetches the files of one peer for tuf-js, and remembers what became of each. */
class PeerFiles implements Fetcher {
  readonly received = new Map<string, Uint8Array>()
  /** Why a needed file could not be fetched. */
  failure: unknown
  readonly #fetch: FetchMetadata

  constructor(fetch: FetchMetadata) {
    this.#fetch = fetch
  }

  async downloadBytes(url: string, maxLength: number): Promise<Buffer> {
    return Buffer.from(await this.get(url.slice(BASE_URL.length + 1), maxLength))
  }

  downloadFile<T>(): Promise<T> {
    throw new Error('targets are fetched without tuf-js')
  }

  async get(name: string, maxLength: number): Promise<Uint8Array> {
    try {
      const bytes = await this.#fetch(name)
      if (bytes === undefined) {
        // A chain of roots ends where no newer root is found.
        if (ROOT_FILE.test(name)) throw new tufErrors.DownloadHTTPError(name, 404)
        throw new MeshError('METADATA_INVALID', `the peer has no ${name}`, { detail: { missing: name } })
      }
      const most = Math.min(maxLength, MAX_METADATA_FILE_BYTES)
      if (bytes.byteLength > most) {
        throw new MeshError('METADATA_INVALID', `${name} has ${bytes.byteLength} bytes, more than ${most}`)
      }
      this.received.set(name, bytes)
      return bytes
    } catch (error) {
      if (!(error instanceof tufErrors.DownloadHTTPError)) this.failure = error
      throw error
    }
  }
}

/** How tuf-js words these faults. The whole text is matched, because other messages hold text of the peer. */
const WRAPPED = /^Unable to load (?:snapshot metadata|targets) error Error: (.*)$/s
const UNWRITTEN = /^Failed to persist metadata .* error: Error: (E[A-Z0-9]+):/
const EXPIRED = /^(?:Final )?(root|timestamp|snapshot|targets|members|images-[a-z0-9-]+)\.json is expired$/
const OLDER = /^New (?:timestamp version|snapshot version|version) .* is less than current version [^ ]+$/s

async function refusal(
  error: unknown,
  scratch: string,
  files: PeerFiles,
  options: { now: () => number; releasedAt?: number },
): Promise<unknown> {
  if (error instanceof MeshError) {
    if (error.code !== 'STATE_CORRUPT') return error
    // The files of the peer do not fit together. That is no damage of this machine's own state.
    return refused('METADATA_INVALID', error.cause instanceof Error ? error.cause.message : error.message, error)
  }
  const message = error instanceof Error ? error.message : String(error)
  const text = WRAPPED.exec(message)?.[1] ?? message
  const unwritten = UNWRITTEN.exec(text)?.[1]
  if (unwritten !== undefined) return storageError(Object.assign(new Error(text), { code: unwritten }), scratch)
  if (errnoOf(error) !== undefined) return storageError(error, scratch)
  const role = EXPIRED.exec(text)?.[1]
  if (role !== undefined) return expired(role, await expiryOf(role, scratch, files), options, error)
  return refused(OLDER.test(text) ? 'METADATA_ROLLBACK' : 'METADATA_INVALID', text, error)
}

function refused(code: 'METADATA_ROLLBACK' | 'METADATA_INVALID', text: string, cause: unknown): MeshError {
  const reason = text.replace(/\p{C}/gu, '?').slice(0, MAX_REASON_CHARACTERS)
  return new MeshError(code, `${code === 'METADATA_ROLLBACK' ? 'older metadata' : 'metadata'} was refused: ${reason}`, {
    cause,
  })
}

const DAY_MS = 24 * 3600 * 1000

function expired(
  role: string,
  expires: string,
  { now, releasedAt }: { now: () => number; releasedAt?: number },
  cause: unknown,
): MeshError {
  const clock = now()
  let text = `${role}.json expired at ${formatTime(expires)}; the clock of this machine says ${formatTime(clock)}`
  if (releasedAt !== undefined && clock < releasedAt - DAY_MS) {
    text += `, but a release it trusts was signed at ${formatTime(releasedAt)}`
  }
  return new MeshError('METADATA_EXPIRED', text, { cause })
}

const isExpiring = object({ signed: object({ expires: text(MAX_TEXT_BYTES) }) })

/** When the expired role expired: according to the newest file that came, or else to the file that was there. */
async function expiryOf(role: string, scratch: string, files: PeerFiles): Promise<string> {
  const name = [...files.received.keys()].filter((key) => key.replace(/^\d+\./, '') === `${role}.json`).at(-1)
  const bytes =
    (name === undefined ? undefined : files.received.get(name)) ?? (await readFile(join(scratch, `${role}.json`)))
  // tuf-js checks the signature before the expiry, so the text can be believed.
  const { signed } = readDocument({ name: `${role}.json`, shape: isExpiring, fault: 'METADATA_INVALID' }, bytes)
  return signed.expires
}
