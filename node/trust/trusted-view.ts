import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  Metadata,
  MetadataKind,
  type Root,
  type Snapshot,
  type TargetFile,
  type Targets,
  type Timestamp,
} from '@tufjs/models'
import { type Digest, digestOf, toHex } from '../../protocol/digest.ts'
import { MeshError } from '../../protocol/errors.ts'
import { decodeManifest } from '../../protocol/manifest.ts'
import { decodeMembers, type Member } from './members.ts'
import { markVerified, type VerifiedManifest } from './verified-manifest.ts'

/** Name of the delegated role that signs the member list, so that enrolling needs no release key. */
export const MEMBERS_ROLE = 'members'
export const MEMBERS_TARGET = 'members.json'

/** Target path of a release's manifest. */
export function manifestTarget(image: string, release: number): string {
  return `images/${image}/${release}.json`
}

/** What one generation of the trusted metadata says; immutable. */
export interface TrustView {
  readonly siteId: Digest
  readonly versions: { readonly root: number; readonly timestamp: number }
  readonly members: readonly Member[]
  readonly images: readonly string[]
  /** The earliest moment (Unix ms) at which some role expires. */
  readonly expires: number
  memberById(id: string): Member | undefined
  newest(image: string): VerifiedManifest | undefined
  release(image: string, release: number): VerifiedManifest | undefined
  releases(image: string): readonly VerifiedManifest[]
}

/** The four top-level roles and the member role of one generation, each proven by the one above it. */
export interface SignedRoles {
  readonly root: Metadata<Root>
  readonly timestamp: Metadata<Timestamp>
  readonly snapshot: Metadata<Snapshot>
  readonly targets: Metadata<Targets>
  readonly members: Metadata<Targets>
}

/**
 * Reads a generation and proves it again from the first root down: root chain, timestamp, snapshot, targets, members, and
 * the hash of every target. Expiry is not looked at: expired metadata still names the release this machine trusts.
 * Errors: STATE_CORRUPT naming the generation and what does not fit.
 */
export async function loadView(generation: string): Promise<TrustView> {
  try {
    const roles = await loadRoles(generation)
    const members = decodeMembers(await readTarget(generation, roles.members.signed.targets[MEMBERS_TARGET]))
    const manifests = new Map<string, VerifiedManifest[]>()
    for (const [path, target] of Object.entries(roles.targets.signed.targets)) {
      const manifest = decodeManifest(await readTarget(generation, target))
      if (path !== manifestTarget(manifest.image, manifest.release))
        throw new Error(`${path} is the manifest of another release`)
      const releases = manifests.get(manifest.image) ?? []
      manifests.set(manifest.image, releases)
      releases.push(markVerified(manifest))
    }
    for (const releases of manifests.values()) releases.sort((a, b) => a.release - b.release)
    const siteId = digestOf(await readFile(join(generation, '1.root.json')))
    return new LoadedView(siteId, roles, members, manifests)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new MeshError('STATE_CORRUPT', `the trusted metadata in ${generation} is damaged: ${why}`, { cause: error })
  }
}

class LoadedView implements TrustView {
  readonly siteId: Digest
  readonly versions: { readonly root: number; readonly timestamp: number }
  readonly members: readonly Member[]
  readonly expires: number
  readonly #byId: ReadonlyMap<string, Member>
  readonly #manifests: ReadonlyMap<string, readonly VerifiedManifest[]>

  constructor(
    siteId: Digest,
    roles: SignedRoles,
    members: readonly Member[],
    manifests: ReadonlyMap<string, readonly VerifiedManifest[]>,
  ) {
    this.siteId = siteId
    this.versions = { root: roles.root.signed.version, timestamp: roles.timestamp.signed.version }
    this.members = members
    this.expires = Math.min(...Object.values(roles).map((role) => Date.parse(role.signed.expires)))
    this.#byId = new Map(members.map((member) => [member.id, member]))
    this.#manifests = manifests
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
}

/** Reads and proves the roles of a generation (The Update Framework 1.0.33, section 5, without the expiry checks). */
export async function loadRoles(generation: string): Promise<SignedRoles> {
  const root = await loadRootChain(generation)
  const timestamp = Metadata.fromJSON(MetadataKind.Timestamp, await readJson(generation, 'timestamp.json'))
  root.verifyDelegate(MetadataKind.Timestamp, timestamp)

  const snapshotBytes = await readFile(join(generation, 'snapshot.json'))
  timestamp.signed.snapshotMeta.verify(snapshotBytes)
  const snapshot = Metadata.fromJSON(MetadataKind.Snapshot, parse(snapshotBytes))
  root.verifyDelegate(MetadataKind.Snapshot, snapshot)

  const targets = await loadTargetsRole(generation, snapshot, MetadataKind.Targets)
  root.verifyDelegate(MetadataKind.Targets, targets)
  const members = await loadTargetsRole(generation, snapshot, MEMBERS_ROLE)
  targets.verifyDelegate(MEMBERS_ROLE, members)
  return { root, timestamp, snapshot, targets, members }
}

async function loadRootChain(generation: string): Promise<Metadata<Root>> {
  const versions = (await readdir(generation))
    .flatMap((name) => /^(\d+)\.root\.json$/.exec(name)?.[1] ?? [])
    .map(Number)
  let root = Metadata.fromJSON(MetadataKind.Root, await readJson(generation, '1.root.json'))
  root.verifyDelegate(MetadataKind.Root, root)
  for (let version = 2; version <= Math.max(...versions); version++) {
    const next = Metadata.fromJSON(MetadataKind.Root, await readJson(generation, `${version}.root.json`))
    root.verifyDelegate(MetadataKind.Root, next)
    next.verifyDelegate(MetadataKind.Root, next)
    if (next.signed.version !== version) throw new Error(`${version}.root.json has version ${next.signed.version}`)
    root = next
  }
  return root
}

async function loadTargetsRole(
  generation: string,
  snapshot: Metadata<Snapshot>,
  role: string,
): Promise<Metadata<Targets>> {
  const bytes = await readFile(join(generation, `${role}.json`))
  const meta = snapshot.signed.meta[`${role}.json`]
  if (meta === undefined) throw new Error(`the snapshot does not name ${role}.json`)
  meta.verify(bytes)
  const metadata = Metadata.fromJSON(MetadataKind.Targets, parse(bytes))
  if (metadata.signed.version !== meta.version) throw new Error(`${role}.json has version ${metadata.signed.version}`)
  return metadata
}

/** SHA-256 of a target in hexadecimal: the name of its file, here and on the wire. */
export function targetDigest(target: TargetFile): string {
  const digest = target.hashes.sha256
  if (digest === undefined || !/^[0-9a-f]{64}$/.test(digest)) throw new Error(`target ${target.path} has no SHA-256`)
  return digest
}

async function readTarget(generation: string, target: TargetFile | undefined): Promise<Uint8Array> {
  if (target === undefined) throw new Error(`no ${MEMBERS_TARGET} is signed`)
  const bytes = await readFile(join(generation, 'targets', targetDigest(target)))
  if (toHex(digestOf(bytes)) !== targetDigest(target)) throw new Error(`target ${target.path} is damaged`)
  return bytes
}

type Json = Parameters<typeof Metadata.fromJSON>[1]

async function readJson(generation: string, name: string): Promise<Json> {
  return parse(await readFile(join(generation, name)))
}

function parse(bytes: Buffer): Json {
  return JSON.parse(bytes.toString('utf8')) as Json
}
