import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import {
  Metadata,
  MetadataKind,
  type MetaFile,
  type Root,
  type Snapshot,
  type TargetFile,
  type Targets,
  type Timestamp,
} from '@tufjs/models'
import { MAX_METADATA_FILE_BYTES } from '../../protocol/constants.ts'
import { type Digest, digestOf, sameBytes, toHex } from '../../protocol/digest.ts'
import { readJson } from '../../protocol/document.ts'
import { errnoOf, isMeshError, MeshError } from '../../protocol/errors.ts'
import { type Check, isRecord } from '../../protocol/json-shape.ts'
import { decodeManifest } from '../../protocol/manifest.ts'
import { storageError } from '../state/atomic-file.ts'
import { decodeMembers, decodeRemoved, type Member, type RemovedMember } from './members.ts'
import { markVerified, type VerifiedManifest } from './verified-manifest.ts'

/** Name of the delegated role that signs the member list, so that enrolling needs no release key. */
export const MEMBERS_ROLE = 'members'
export const MEMBERS_TARGET = 'members.json'

/**
 * Key of the layout of disks in the targets role. It is no target: versions that do not know it would take it for a release, and refuse
 * all metadata.
 */
export const LAYOUT_FIELD = 'layout'

/** Key of the timestamp role that says in whose term it was signed: which master, of those that were made from one copy. */
export const TERM_FIELD = 'term'

/** Target path of a release's manifest. */
export function manifestTarget(image: string, release: number): string {
  return `images/${image}/${release}.json`
}

/** Role to which targets delegate the images whose names begin with a prefix: `images-school-a` those of `school-a/`. */
export type PrefixRole = `images-${string}`

/** The beginning of image names that can be delegated: `school-a`. */
function isImagePrefix(text: string): boolean {
  return /^[a-z0-9][a-z0-9-]{0,39}$/.test(text)
}

/** Whether a role signs images of a prefix. */
export function isPrefixRole(role: string): role is PrefixRole {
  return role.startsWith('images-') && isImagePrefix(role.slice('images-'.length))
}

/** The target paths of a prefix, as The Update Framework writes them: `images/school-a/win11/3.json` is one. */
export function prefixPath(role: PrefixRole): string {
  return `images/${role.slice('images-'.length)}/*/*.json`
}

/** What one generation of the trusted metadata says. Immutable. */
export interface TrustView {
  readonly siteId: Digest
  readonly versions: { readonly root: number; readonly timestamp: number }
  /** The first 8 bytes of the SHA-256 of the timestamp role's file, hexadecimal: with the same version it is always the same. */
  readonly head: string
  readonly members: readonly Member[]
  /** Machines that were removed, the last one at the end; who joined again is none. */
  readonly removed: readonly RemovedMember[]
  readonly images: readonly string[]
  /** How disks are laid out, as it was signed, and not looked at; undefined if the site does not say. */
  readonly layout: unknown
  /** The earliest moment (Unix ms) at which some role expires. */
  readonly expires: number
  memberById(id: string): Member | undefined
  newest(image: string): VerifiedManifest | undefined
  release(image: string, release: number): VerifiedManifest | undefined
  releases(image: string): readonly VerifiedManifest[]
  /** The release whose tree has this root, in hexadecimal; the newest, if several are equal. */
  releaseByRoot(root: string): VerifiedManifest | undefined
}

/** The four top-level roles and the member role of one generation, each proven by the one above it. */
export interface SignedRoles {
  readonly root: Metadata<Root>
  readonly timestamp: Metadata<Timestamp>
  readonly snapshot: Metadata<Snapshot>
  readonly targets: Metadata<Targets>
  readonly members: Metadata<Targets>
  /** The roles to which targets delegate images; each has signed something. */
  readonly delegated: ReadonlyMap<PrefixRole, Metadata<Targets>>
}

/**
 * Reads a generation and proves it again from the first root down: chain of roots, timestamp, snapshot, targets,
 * members, and the hash of every target. Expiry does not matter: expired metadata still names the release that this
 * machine trusts. Errors: STATE_CORRUPT naming the file and what does not fit, FORMAT_NEWER,
 * STATE_UNWRITABLE, DISK_IO.
 */
export async function loadView(generation: string): Promise<TrustView> {
  const roles = await loadRoles(generation)
  const manifests = new Map<string, VerifiedManifest[]>()
  for (const target of releaseTargets(roles)) {
    const manifest = await provenTarget(generation, target, (bytes) => {
      const { path } = target
      const decoded = decodeManifest(bytes)
      if (path !== manifestTarget(decoded.image, decoded.release)) throw new Error(`it is not the manifest of ${path}`)
      return markVerified(decoded)
    })
    const releases = manifests.get(manifest.image) ?? []
    manifests.set(manifest.image, releases)
    releases.push(manifest)
  }
  for (const releases of manifests.values()) releases.sort((a, b) => a.release - b.release)
  const lists = await provenTarget(generation, memberList(roles.members), (bytes) => ({
    members: decodeMembers(bytes),
    removed: decodeRemoved(bytes),
  }))
  const siteId = await proven(generation, '1.root.json', digestOf)
  const head = await proven(generation, 'timestamp.json', (bytes) => toHex(digestOf(bytes)).slice(0, 16))
  return new LoadedView({ siteId, head }, roles, lists, manifests)
}

class LoadedView implements TrustView {
  readonly siteId: Digest
  readonly versions: { readonly root: number; readonly timestamp: number }
  readonly head: string
  readonly members: readonly Member[]
  readonly removed: readonly RemovedMember[]
  readonly expires: number
  readonly layout: unknown
  readonly #byId: ReadonlyMap<string, Member>
  readonly #manifests: ReadonlyMap<string, readonly VerifiedManifest[]>
  readonly #byRoot: ReadonlyMap<string, VerifiedManifest>

  constructor(
    { siteId, head }: { siteId: Digest; head: string },
    roles: SignedRoles,
    { members, removed }: { members: readonly Member[]; removed: readonly RemovedMember[] },
    manifests: ReadonlyMap<string, readonly VerifiedManifest[]>,
  ) {
    this.siteId = siteId
    this.head = head
    this.versions = { root: roles.root.signed.version, timestamp: roles.timestamp.signed.version }
    this.members = members
    this.removed = removed
    const { root, timestamp, snapshot, targets, delegated } = roles
    const all = [root, timestamp, snapshot, targets, roles.members, ...delegated.values()]
    this.expires = Math.min(...all.map((role) => Date.parse(role.signed.expires)))
    this.layout = roles.targets.signed.unrecognizedFields[LAYOUT_FIELD]
    this.#byId = new Map(members.map((member) => [member.id, member]))
    this.#manifests = manifests
    this.#byRoot = new Map([...manifests.values()].flat().map((manifest) => [toHex(manifest.root), manifest]))
  }

  get images(): readonly string[] {
    return [...this.#manifests.keys()].sort()
  }

  memberById(id: string): Member | undefined {
    return this.#byId.get(id)
  }

  newest(image: string): VerifiedManifest | undefined {
    return this.releases(image).at(-1)
  }

  release(image: string, release: number): VerifiedManifest | undefined {
    return this.releases(image).find((manifest) => manifest.release === release)
  }

  releases(image: string): readonly VerifiedManifest[] {
    return this.#manifests.get(image) ?? []
  }

  releaseByRoot(root: string): VerifiedManifest | undefined {
    return this.#byRoot.get(root)
  }
}

/**
 * Reads and proves the roles of a generation (The Update Framework 1.0.33, section 5, without the expiry checks).
 * Errors: as {@link loadView}.
 */
export async function loadRoles(generation: string): Promise<SignedRoles> {
  const root = await loadRootChain(generation)
  const timestamp = await proven(generation, 'timestamp.json', (bytes) => readTimestamp(root, bytes))
  const snapshot = await proven(generation, 'snapshot.json', (bytes) => {
    const { version } = named(timestamp.signed.snapshotMeta, bytes)
    const metadata = Metadata.fromJSON(MetadataKind.Snapshot, parseMetadata(bytes))
    root.verifyDelegate(MetadataKind.Snapshot, metadata)
    requireVersion(metadata, version)
    return metadata
  })
  const targets = await loadTargetsRole(generation, snapshot, root, MetadataKind.Targets)
  const members = await loadTargetsRole(generation, snapshot, targets, MEMBERS_ROLE)
  const delegated = new Map<PrefixRole, Metadata<Targets>>()
  for (const role of prefixRoles(targets.signed, snapshot.signed))
    delegated.set(role, await loadTargetsRole(generation, snapshot, targets, role))
  return { root, timestamp, snapshot, targets, members, delegated }
}

/**
 * Whether these bytes are a timestamp role that the keys of this generation have signed, with the version of the one in force and other
 * content. The same content in other bytes proves nothing: anybody can write it down in another way.
 */
export async function contradicts(generation: string, bytes: Uint8Array): Promise<boolean> {
  const { root, timestamp } = await loadRoles(generation)
  try {
    const { signed } = readTimestamp(root, Buffer.from(bytes))
    return signed.version === timestamp.signed.version && !isDeepStrictEqual(signed.toJSON(), timestamp.signed.toJSON())
  } catch {
    return false
  }
}

function readTimestamp(root: Metadata<Root>, bytes: Buffer): Metadata<Timestamp> {
  const metadata = Metadata.fromJSON(MetadataKind.Timestamp, parseMetadata(bytes))
  root.verifyDelegate(MetadataKind.Timestamp, metadata)
  return metadata
}

/** The roles to which targets delegate images, and of which the snapshot names metadata. */
export function prefixRoles({ delegations }: Targets, { meta }: Snapshot): PrefixRole[] {
  return Object.keys(delegations?.roles ?? {}).flatMap((role) =>
    isPrefixRole(role) && meta[`${role}.json`] !== undefined ? [role] : [],
  )
}

/** The manifests that are signed. What targets sign themselves goes first; a role signs nothing beyond the paths that it was given. */
function releaseTargets({ targets, delegated }: Pick<SignedRoles, 'targets' | 'delegated'>): readonly TargetFile[] {
  const byPath = new Map(Object.values(targets.signed.targets).map((target) => [target.path, target]))
  for (const [role, { signed }] of delegated) {
    const given = targets.signed.delegations?.roles?.[role]
    for (const target of Object.values(signed.targets))
      if (!byPath.has(target.path) && given?.isDelegatedPath(target.path) === true) byPath.set(target.path, target)
  }
  return [...byPath.values()]
}

/** What a generation keeps under `targets/`: every manifest and the member list. */
export function targetsOf(roles: SignedRoles): readonly TargetFile[] {
  return [...releaseTargets(roles), memberList(roles.members)]
}

/** Removes targets that no role names any more, such as earlier member lists: they would pile up in every generation. */
export async function removeUnnamedTargets(generation: string, roles: SignedRoles): Promise<void> {
  const named = new Set(targetsOf(roles).map(targetDigest))
  const directory = join(generation, 'targets')
  for (const name of await readdir(directory)) {
    if (!named.has(name)) await rm(join(directory, name), { recursive: true })
  }
}

/** SHA-256 of a target in hexadecimal: the name of its file, here and on the wire. */
export function targetDigest(target: TargetFile): string {
  const digest = target.hashes.sha256
  if (digest === undefined || !/^[0-9a-f]{64}$/.test(digest)) throw new Error(`target ${target.path} has no SHA-256`)
  return digest
}

/**
 * Proves every root by the root before it and by itself, and that the newest root is the one that refreshes start from.
 */
async function loadRootChain(generation: string): Promise<Metadata<Root>> {
  const names = await readdir(generation).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw storageError(error, generation)
    throw new MeshError('STATE_CORRUPT', `${generation} is missing`, { detail: { path: generation }, cause: error })
  })
  const versions = names.flatMap((name) => /^(\d+)\.root\.json$/.exec(name)?.[1] ?? []).map(Number)
  let root: Metadata<Root> | undefined
  let newest: Uint8Array = new Uint8Array()
  for (let version = 1; version <= Math.max(1, ...versions); version++) {
    const before = root
    root = await proven(generation, `${version}.root.json`, (bytes) => {
      const next = Metadata.fromJSON(MetadataKind.Root, parseMetadata(bytes))
      before?.verifyDelegate(MetadataKind.Root, next)
      next.verifyDelegate(MetadataKind.Root, next)
      requireVersion(next, version)
      newest = bytes
      return next
    })
  }
  await proven(generation, 'root.json', (bytes) => {
    if (!sameBytes(bytes, newest)) throw new Error('it is not the newest root metadata')
  })
  return root!
}

function loadTargetsRole(
  generation: string,
  snapshot: Metadata<Snapshot>,
  delegator: Metadata<Root> | Metadata<Targets>,
  role: string,
): Promise<Metadata<Targets>> {
  return proven(generation, `${role}.json`, (bytes) => {
    const { version } = named(snapshot.signed.meta[`${role}.json`], bytes)
    const metadata = Metadata.fromJSON(MetadataKind.Targets, parseMetadata(bytes))
    delegator.verifyDelegate(role, metadata)
    requireVersion(metadata, version)
    for (const target of Object.values(metadata.signed.targets)) {
      targetDigest(target)
      if (target.length > MAX_METADATA_FILE_BYTES) throw new Error(`target ${target.path} is too long`)
    }
    if (role === MEMBERS_ROLE) memberList(metadata)
    return metadata
  })
}

/** Returns `meta` if the content is what the role above names. */
function named(meta: MetaFile | undefined, bytes: Buffer): MetaFile {
  if (meta === undefined) throw new Error('the snapshot does not name it')
  meta.verify(bytes)
  return meta
}

function requireVersion(metadata: Metadata<Root | Snapshot | Targets>, version: number): void {
  if (metadata.signed.version !== version) throw new Error(`it has version ${metadata.signed.version}, not ${version}`)
}

/** The target of the member role that counts; there is only one. */
function memberList(members: Metadata<Targets>): TargetFile {
  const list = members.signed.targets[MEMBERS_TARGET]
  if (list === undefined) throw new Error('it names no member list')
  return list
}

function provenTarget<T>(generation: string, target: TargetFile, check: (bytes: Buffer) => T): Promise<T> {
  const digest = targetDigest(target)
  return proven(generation, join('targets', digest), (bytes) => {
    if (toHex(digestOf(bytes)) !== digest) throw new Error(`its content is not that of ${target.path}`)
    return check(bytes)
  })
}

/** Reads and checks one file of a generation. Errors: STATE_CORRUPT naming it, with what `check` threw as the cause. */
async function proven<T>(generation: string, name: string, check: (bytes: Buffer) => T): Promise<T> {
  const path = join(generation, name)
  try {
    return check(await readFile(path))
  } catch (error) {
    const known = storageError(error, path)
    if (known !== error) throw known
    // That is no damage.
    if (isMeshError(error, 'FORMAT_NEWER')) throw error
    const text = error instanceof Error ? error.message : String(error)
    const why = errnoOf(error) === 'ENOENT' ? 'it is missing' : text
    throw new MeshError('STATE_CORRUPT', `${path} is damaged: ${why}`, { detail: { path }, cause: error })
  }
}

type Json = Parameters<typeof Metadata.fromJSON>[1]
/** The rest is looked at by the TUF library, which skips what it does not know. */
const isJson: Check<Json> = (value): value is Json => isRecord(value)

/** The JSON of a role, for the TUF library. Throws if it is none. */
export function parseMetadata(bytes: Buffer): Json {
  return readJson('the metadata', isJson, bytes)
}
