import assert from 'node:assert/strict'
import { type KeyObject, sign } from 'node:crypto'
import { access, copyFile, mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { canonicalize } from '@tufjs/canonical-json'
import { Key, Metadata, MetaFile, Root, Signature, Snapshot, TargetFile, Targets, Timestamp } from '@tufjs/models'
import { Delegations } from '@tufjs/models/dist/delegations.js'
import { DelegatedRole, Role } from '@tufjs/models/dist/role.js'
import { MAX_MEMBERS, MAX_METADATA_FILE_BYTES } from '../../protocol/constants.ts'
import { digestOf, toHex } from '../../protocol/digest.ts'
import { type DiskLayout, encodeLayout } from '../../protocol/disk-layout.ts'
import { MeshError } from '../../protocol/errors.ts'
import { decodeManifest, encodeManifest, type Manifest } from '../../protocol/manifest.ts'
import { findName, sameName } from '../../protocol/names.ts'
import { fsyncDirectory } from '../state/atomic-file.ts'
import { currentGeneration, nextGeneration } from './generations.ts'
import { loadOrCreateKey, rawPublicKey } from './machine-key.ts'
import { decodeMembers, encodeMembers, type Member } from './members.ts'
import type { TrustStore } from './trust-store.ts'
import {
  LAYOUT_FIELD,
  loadRoles,
  loadView,
  MEMBERS_ROLE,
  MEMBERS_TARGET,
  manifestTarget,
  removeUnnamedTargets,
  type SignedRoles,
} from './trusted-view.ts'

const ROLES = ['root', 'targets', 'snapshot', 'timestamp', MEMBERS_ROLE] as const
type RoleName = (typeof ROLES)[number]
/** The roles that sign targets. */
const TARGETS_ROLES = ['targets', MEMBERS_ROLE] as const
type TargetsRole = (typeof TARGETS_ROLES)[number]

type SignedField = Targets['unrecognizedFields'][string]

const DAY_MS = 24 * 3600 * 1000
const LIFE_MS: Readonly<Record<RoleName, number>> = {
  root: 3650 * DAY_MS,
  targets: 1825 * DAY_MS,
  members: 365 * DAY_MS,
  snapshot: 365 * DAY_MS,
  timestamp: 30 * DAY_MS,
}
/** Versions that a master skips when another one has signed with its keys: more than the other one can have signed meanwhile. */
const FORK_STEP = 1000
const SPEC_VERSION = '1.0.33'

interface Signer {
  readonly key: Key
  readonly sign: (data: Buffer) => Signature
}

type Signers = Readonly<Record<RoleName, Signer>>

/**
 * Signs for the master: releases, the member list, and the metadata that keeps them fresh. Each role has an Ed25519 key
 * of its own in the keys directory (mode 0600), so that the keys of root and targets can later be taken offline.
 */
export class SiteSigner {
  readonly #trust: TrustStore
  readonly #signers: Signers
  readonly #now: () => number
  readonly #over: boolean

  private constructor(trust: TrustStore, signers: Signers, now: () => number, over: boolean) {
    this.#trust = trust
    this.#signers = signers
    this.#now = now
    this.#over = over
  }

  /**
   * Opens the signer of a site that exists. `over`: signs with versions far above those in force, because another machine has signed with
   * the same keys. Errors: STATE_NOT_MASTER if the keys are not here, STATE_CORRUPT.
   */
  static async open(options: {
    keysDir: string
    trust: TrustStore
    now?: () => number
    over?: boolean
  }): Promise<SiteSigner> {
    await requireKeys(options.keysDir)
    const signers = await loadSigners(options.keysDir)
    const { root, targets } = await options.trust.roles()
    const named = { ...root.signed.roles, ...targets.signed.delegations?.roles }
    for (const role of ROLES) {
      if (named[role]?.keyIDs.includes(signers[role].key.keyID) === true) continue
      throw new MeshError('STATE_NOT_MASTER', `the ${role} key in ${options.keysDir} is not one of this site`)
    }
    return new SiteSigner(options.trust, signers, options.now ?? Date.now, options.over ?? false)
  }

  /**
   * Signs a release. Its number must be greater than that of every earlier release of the image. Errors:
   * MANIFEST_INVALID (nobody could read it), DISK_FULL, STATE_UNWRITABLE.
   */
  async publish(manifest: Manifest): Promise<void> {
    const bytes = encodeManifest(manifest)
    decodeManifest(bytes)
    await this.#change(async (scratch, roles) => {
      const newest = this.#trust.view().newest(manifest.image)?.release ?? 0
      assert(manifest.release > newest, `release ${manifest.release} of ${manifest.image} is not new`)
      const target = await addTarget(scratch, manifestTarget(manifest.image, manifest.release), bytes)
      roles.targets.signed.addTarget(target)
      return ['targets']
    })
  }

  /**
   * Adds a member, or replaces the member with the same id. A member that is in the list exactly like this changes
   * nothing. `replaces`: id of the member that this machine was before it lost its key; that key is listed as removed, in the same
   * change. Errors: NAME_TAKEN, SITE_FULL, DISK_FULL, STATE_UNWRITABLE.
   */
  async addMember(member: Member, { replaces }: { readonly replaces?: string | undefined } = {}): Promise<void> {
    await this.#change(async (scratch, roles) => {
      const view = this.#trust.view()
      const { members } = view
      if (members.some((old) => isDeepStrictEqual({ ...old, added: '' }, { ...member, added: '' }))) return undefined
      const before = members.find(({ id }) => id === replaces && id !== member.id)
      const others = members.filter((other) => other.id !== member.id && other !== before)
      const namesake = others.find(({ name }) => sameName(name, member.name))
      if (namesake !== undefined)
        throw new MeshError('NAME_TAKEN', `a machine named ${namesake.name} is already a member`)
      if (others.length >= MAX_MEMBERS) throw new MeshError('SITE_FULL', `the site has ${MAX_MEMBERS} members`)
      const at = new Date(this.#now()).toISOString()
      const gone = before === undefined ? [] : [{ id: before.id, name: before.name, at }]
      const removed = view.removed.filter(({ id }) => id !== member.id)
      const bytes = encodeMembers([...others, member], [...removed, ...gone])
      decodeMembers(bytes)
      if (bytes.byteLength > MAX_METADATA_FILE_BYTES)
        throw new MeshError('SITE_FULL', `the list of ${others.length} members has no room for another one`)
      roles.members.signed.addTarget(await addTarget(scratch, MEMBERS_TARGET, bytes))
      return [MEMBERS_ROLE]
    })
  }

  /**
   * Takes a member out of the list, so that nobody connects to it any more, and says there that it was removed. The master itself
   * stays. Errors: NOT_A_MEMBER.
   */
  async removeMember(name: string): Promise<Member> {
    const machines = this.#trust.view().members.filter(({ role }) => role !== 'master')
    const member = findName(machines, name, (one) => one.name)
    if (member === undefined) throw new MeshError('NOT_A_MEMBER', `no lab machine of this site is named ${name}`)
    await this.#change(async (scratch, roles) => {
      const view = this.#trust.view()
      const left = view.members.filter((one) => one.id !== member.id)
      const at = new Date(this.#now()).toISOString()
      const bytes = encodeMembers(left, [...view.removed, { id: member.id, name: member.name, at }])
      roles.members.signed.addTarget(await addTarget(scratch, MEMBERS_TARGET, bytes))
      return [MEMBERS_ROLE]
    })
    return member
  }

  /** Signs how the disks of bare machines are laid out, in place of what was signed before. Errors: LAYOUT_INVALID, DISK_FULL, STATE_UNWRITABLE. */
  async setLayout(layout: DiskLayout): Promise<void> {
    const document = encodeLayout(layout)
    await this.#change(async (_scratch, { targets }) => {
      if (isDeepStrictEqual(targets.signed.unrecognizedFields[LAYOUT_FIELD], document)) return undefined
      targets.signed.unrecognizedFields[LAYOUT_FIELD] = document as SignedField
      return ['targets']
    })
  }

  /** Signs every role but root anew whose life is more than half over. Returns whether there was one. */
  async renew(): Promise<boolean> {
    const isDue = (role: RoleName, roles: SignedRoles): boolean =>
      Date.parse(roles[role].signed.expires) - this.#now() < LIFE_MS[role] / 2
    const roles = await this.#trust.roles()
    if (!(['targets', MEMBERS_ROLE, 'snapshot', 'timestamp'] as const).some((role) => isDue(role, roles))) return false
    return this.#change(async (_scratch, now) => TARGETS_ROLES.filter((role) => isDue(role, now)))
  }

  /**
   * Changes roles in the next generation. `edit` returns the changed roles, if any. Snapshot and timestamp follow every
   * change.
   */
  #change(
    edit: (scratch: string, roles: SignedRoles) => Promise<readonly TargetsRole[] | undefined>,
  ): Promise<boolean> {
    return this.#trust.change(async (scratch) => {
      const roles = await loadRoles(scratch)
      const changed = await edit(scratch, roles)
      if (changed === undefined) return undefined
      const { meta } = roles.snapshot.signed
      const step = this.#over ? FORK_STEP : 1
      // What was signed by a clock that was ahead would be valid for too long.
      const tooLong = (role: TargetsRole): boolean =>
        Date.parse(roles[role].signed.expires) > this.#now() + LIFE_MS[role] + DAY_MS
      for (const role of TARGETS_ROLES.filter((one) => this.#over || changed.includes(one) || tooLong(one))) {
        const { signed } = roles[role]
        const next = new Targets({
          ...base(signed.version + step, this.#expires(role)),
          targets: signed.targets,
          ...delegationsOf(signed),
          // What a later version has added stays.
          unrecognizedFields: signed.unrecognizedFields,
        })
        meta[`${role}.json`] = await writeRole(scratch, role, next, this.#signers[role])
      }
      const snapshot = new Snapshot({
        ...base(roles.snapshot.signed.version + step, this.#expires('snapshot')),
        meta,
        unrecognizedFields: roles.snapshot.signed.unrecognizedFields,
      })
      const snapshotMeta = await writeRole(scratch, 'snapshot', snapshot, this.#signers.snapshot)
      const timestamp = new Timestamp({
        ...base(roles.timestamp.signed.version + step, this.#expires('timestamp')),
        snapshotMeta,
        unrecognizedFields: roles.timestamp.signed.unrecognizedFields,
      })
      await writeRole(scratch, 'timestamp', timestamp, this.#signers.timestamp)
      await removeUnnamedTargets(scratch, roles)
      // The generation is proven, as every machine will prove it, before it is in force.
      return loadView(scratch)
    })
  }

  #expires(role: RoleName): string {
    return expiry(this.#now(), role)
  }
}

/** When the newest metadata was signed, by the clock of the master then; Unix ms. */
export function signedAt({ timestamp }: SignedRoles): number {
  return Date.parse(timestamp.signed.expires) - LIFE_MS.timestamp
}

/**
 * Creates a site: one key for each role, and metadata that names `master` as its first member. An attempt that was cut
 * short is completed or begun again. A site that exists is left as it is. Errors: STATE_CORRUPT if there are keys
 * without metadata, because other metadata signed by them would be taken for the site's; STATE_NOT_MASTER if there is
 * metadata without keys.
 */
export async function createSite(options: {
  keysDir: string
  trustDir: string
  master: Member
  now?: number
}): Promise<void> {
  const { keysDir, trustDir, master, now = Date.now() } = options
  // The directory of the keys gets its name last, so that under this name the keys always belong to metadata.
  const newKeysDir = `${keysDir}.new`
  if ((await currentGeneration(trustDir)) === undefined) {
    if (await exists(join(keysDir, 'root.pem'))) {
      const why = `${keysDir} holds the keys of a site whose metadata is gone from ${trustDir}; put that back from a copy`
      throw new MeshError('STATE_CORRUPT', why, { detail: { path: trustDir } })
    }
    await rm(newKeysDir, { recursive: true, force: true })
    await mkdir(newKeysDir, { recursive: true, mode: 0o700 })
    await signFirst(trustDir, await loadSigners(newKeysDir), master, now)
  }
  if (!(await exists(join(keysDir, 'root.pem'))) && (await exists(newKeysDir))) {
    await rename(newKeysDir, keysDir)
    await fsyncDirectory(dirname(keysDir))
  }
  await requireKeys(keysDir)
}

/** Version 1 of every role. */
async function signFirst(trustDir: string, signers: Signers, master: Member, now: number): Promise<void> {
  await nextGeneration(trustDir, async (scratch) => {
    const topLevel = ['root', 'targets', 'snapshot', 'timestamp'] as const
    const roles = Object.fromEntries(
      topLevel.map((name) => [name, new Role({ keyIDs: [signers[name].key.keyID], threshold: 1 })]),
    )
    const keys = Object.fromEntries(topLevel.map((name) => [signers[name].key.keyID, signers[name].key]))
    const root = new Root({ ...base(1, expiry(now, 'root')), keys, roles, consistentSnapshot: true })
    await writeRole(scratch, 'root', root, signers.root)
    await copyFile(join(scratch, 'root.json'), join(scratch, '1.root.json'))

    const memberKey = signers.members.key
    const delegated = new DelegatedRole({
      name: MEMBERS_ROLE,
      keyIDs: [memberKey.keyID],
      threshold: 1,
      terminating: true,
      paths: [MEMBERS_TARGET],
    })
    const delegations = new Delegations({
      keys: { [memberKey.keyID]: memberKey },
      roles: { [MEMBERS_ROLE]: delegated },
    })
    const targets = new Targets({ ...base(1, expiry(now, 'targets')), targets: {}, delegations })
    const list = await addTarget(scratch, MEMBERS_TARGET, encodeMembers([master]))
    const members = new Targets({ ...base(1, expiry(now, MEMBERS_ROLE)), targets: { [MEMBERS_TARGET]: list } })
    const meta = {
      'targets.json': await writeRole(scratch, 'targets', targets, signers.targets),
      'members.json': await writeRole(scratch, MEMBERS_ROLE, members, signers.members),
    }
    const snapshot = new Snapshot({ ...base(1, expiry(now, 'snapshot')), meta })
    const snapshotMeta = await writeRole(scratch, 'snapshot', snapshot, signers.snapshot)
    const timestamp = new Timestamp({ ...base(1, expiry(now, 'timestamp')), snapshotMeta })
    await writeRole(scratch, 'timestamp', timestamp, signers.timestamp)
    return loadView(scratch)
  })
}

function base(version: number, expires: string): { version: number; specVersion: string; expires: string } {
  return { version, specVersion: SPEC_VERSION, expires }
}

/** TUF times have whole seconds. */
function expiry(now: number, role: RoleName): string {
  return `${new Date(now + LIFE_MS[role]).toISOString().slice(0, 19)}Z`
}

function delegationsOf(signed: Targets): { delegations?: Delegations } {
  return signed.delegations === undefined ? {} : { delegations: signed.delegations as Delegations }
}

/** Signs a role into its file and returns how the role above names it. */
async function writeRole(
  scratch: string,
  name: RoleName,
  signed: Root | Targets | Snapshot | Timestamp,
  signer: Signer,
): Promise<MetaFile> {
  const metadata = new Metadata(signed)
  metadata.sign(signer.sign, false)
  const bytes = Buffer.from(canonicalize(metadata.toJSON()))
  await writeFile(join(scratch, `${name}.json`), bytes)
  return new MetaFile({ version: signed.version, length: bytes.byteLength, hashes: { sha256: toHex(digestOf(bytes)) } })
}

async function addTarget(scratch: string, path: string, bytes: Uint8Array): Promise<TargetFile> {
  const sha256 = toHex(digestOf(bytes))
  await writeFile(join(scratch, 'targets', sha256), bytes)
  return new TargetFile({ path, length: bytes.byteLength, hashes: { sha256 } })
}

async function loadSigners(keysDir: string): Promise<Signers> {
  const entries: [RoleName, Signer][] = []
  for (const role of ROLES) entries.push([role, signerOf(await loadOrCreateKey(join(keysDir, `${role}.pem`)))])
  return Object.fromEntries(entries) as Record<RoleName, Signer>
}

function signerOf(privateKey: KeyObject): Signer {
  const content = { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: toHex(rawPublicKey(privateKey)) } }
  const keyID = toHex(digestOf(Buffer.from(canonicalize(content))))
  const key = new Key({ keyID, keyType: content.keytype, scheme: content.scheme, keyVal: content.keyval })
  return { key, sign: (data) => new Signature({ keyID, sig: sign(undefined, data, privateKey).toString('hex') }) }
}

async function requireKeys(keysDir: string): Promise<void> {
  for (const role of ROLES) {
    if (await exists(join(keysDir, `${role}.pem`))) continue
    throw new MeshError('STATE_NOT_MASTER', `this machine does not have the site's ${role} key`)
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
