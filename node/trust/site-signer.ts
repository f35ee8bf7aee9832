import { type KeyObject, sign } from 'node:crypto'
import { access, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { canonicalize } from '@tufjs/canonical-json'
import { Key, Metadata, MetaFile, Root, Signature, Snapshot, TargetFile, Targets, Timestamp } from '@tufjs/models'
import { Delegations } from '@tufjs/models/dist/delegations.js'
import { DelegatedRole, Role } from '@tufjs/models/dist/role.js'
import { digestOf, toHex } from '../../protocol/digest.ts'
import { MeshError } from '../../protocol/errors.ts'
import { encodeManifest, type Manifest } from '../../protocol/manifest.ts'
import { currentGeneration, nextGeneration } from './generations.ts'
import { loadOrCreateKey, rawPublicKey } from './machine-key.ts'
import { encodeMembers, type Member } from './members.ts'
import type { TrustStore } from './trust-store.ts'
import { loadRoles, MEMBERS_ROLE, MEMBERS_TARGET, manifestTarget } from './trusted-view.ts'

const ROLES = ['root', 'targets', 'snapshot', 'timestamp', MEMBERS_ROLE] as const
type RoleName = (typeof ROLES)[number]

const DAY_MS = 24 * 3600 * 1000
const LIFE_MS: Readonly<Record<RoleName, number>> = {
  root: 3650 * DAY_MS,
  targets: 1825 * DAY_MS,
  members: 365 * DAY_MS,
  snapshot: 365 * DAY_MS,
  timestamp: 30 * DAY_MS,
}
const SPEC_VERSION = '1.0.33'

interface Signer {
  readonly key: Key
  readonly sign: (data: Buffer) => Signature
}

/**
 * The master's pen: signs releases, the member list and the metadata that keeps them fresh. One Ed25519 key per role in
 * the keys directory (mode 0600), so that the root and targets keys can later be taken offline.
 */
export class SiteSigner {
  readonly #trust: TrustStore
  readonly #signers: Readonly<Record<RoleName, Signer>>
  readonly #now: () => number

  private constructor(trust: TrustStore, signers: Readonly<Record<RoleName, Signer>>, now: () => number) {
    this.#trust = trust
    this.#signers = signers
    this.#now = now
  }

  /** Opens the signer of a site that exists. Errors: STATE_NOT_MASTER if the keys are not here. */
  static async open(options: { keysDir: string; trust: TrustStore; now?: () => number }): Promise<SiteSigner> {
    await requireKeys(options.keysDir)
    return new SiteSigner(options.trust, await loadSigners(options.keysDir), options.now ?? Date.now)
  }

  /** Signs a release. Its number must be greater than every earlier one of the image. */
  async publish(manifest: Manifest): Promise<void> {
    const newest = this.#trust.view().newest(manifest.image)?.release ?? 0
    if (manifest.release <= newest) throw new RangeError(`release ${manifest.release} of ${manifest.image} is not new`)
    await this.#change(['targets'], async (scratch, roles) => {
      const target = await addTarget(
        scratch,
        manifestTarget(manifest.image, manifest.release),
        encodeManifest(manifest),
      )
      roles.targets.signed.addTarget(target)
    })
  }

  /** Adds a member, or replaces the one with the same id. Errors: NAME_TAKEN. */
  async addMember(member: Member): Promise<void> {
    const others = this.#trust.view().members.filter((other) => other.id !== member.id)
    if (others.some((other) => other.name === member.name)) {
      throw new MeshError('NAME_TAKEN', `a machine named ${member.name} is already a member`)
    }
    await this.#change([MEMBERS_ROLE], async (scratch, roles) => {
      roles.members.signed.addTarget(await addTarget(scratch, MEMBERS_TARGET, encodeMembers([...others, member])))
    })
  }

  /** Takes a member out of the list: nobody connects to it any more. Errors: NOT_A_MEMBER; the master itself stays. */
  async removeMember(name: string): Promise<Member> {
    const { members } = this.#trust.view()
    const member = members.find((one) => one.name === name && one.role !== 'master')
    if (member === undefined) throw new MeshError('NOT_A_MEMBER', `no lab machine of this site is named ${name}`)
    const left = members.filter((one) => one !== member)
    await this.#change([MEMBERS_ROLE], async (scratch, roles) => {
      roles.members.signed.addTarget(await addTarget(scratch, MEMBERS_TARGET, encodeMembers(left)))
    })
    return member
  }

  /** Signs the member list, snapshot and timestamp anew when less than half of some life is left. True if it did. */
  async renew(): Promise<boolean> {
    if (this.#trust.view().expires - this.#now() > LIFE_MS.timestamp / 2) return false
    await this.#change([MEMBERS_ROLE], async () => undefined)
    return true
  }

  /** Changes roles in the next generation; snapshot and timestamp follow every change. */
  async #change(
    changed: readonly ('targets' | typeof MEMBERS_ROLE)[],
    edit: (scratch: string, roles: Awaited<ReturnType<typeof loadRoles>>) => Promise<void>,
  ): Promise<void> {
    await this.#trust.change(async (scratch) => {
      const roles = await loadRoles(scratch)
      await edit(scratch, roles)
      const { meta } = roles.snapshot.signed
      for (const role of changed) {
        const { signed } = roles[role]
        const next = new Targets({
          ...base(signed.version + 1, this.#expires(role)),
          targets: signed.targets,
          ...delegationsOf(signed),
        })
        meta[`${role}.json`] = await writeRole(scratch, role, next, this.#signers[role])
      }
      const snapshot = new Snapshot({ ...base(roles.snapshot.signed.version + 1, this.#expires('snapshot')), meta })
      const snapshotMeta = await writeRole(scratch, 'snapshot', snapshot, this.#signers.snapshot)
      const timestamp = new Timestamp({
        ...base(roles.timestamp.signed.version + 1, this.#expires('timestamp')),
        snapshotMeta,
      })
      await writeRole(scratch, 'timestamp', timestamp, this.#signers.timestamp)
      return true
    })
  }

  #expires(role: RoleName): string {
    return expiry(this.#now(), role)
  }
}

/**
 * Creates a site: one key per role, and metadata that names `master` as its first member. Keys of an attempt that was cut
 * short are used again; a site that exists is left as it is.
 */
export async function createSite(options: {
  keysDir: string
  trustDir: string
  master: Member
  now?: number
}): Promise<void> {
  const { keysDir, trustDir, master, now = Date.now() } = options
  if ((await currentGeneration(trustDir)) !== undefined) return
  await mkdir(keysDir, { recursive: true, mode: 0o700 })
  const signers = await loadSigners(keysDir)
  await nextGeneration(trustDir, async (scratch) => {
    const topLevel = ['root', 'targets', 'snapshot', 'timestamp'] as const
    const roles = Object.fromEntries(
      topLevel.map((name) => [name, new Role({ keyIDs: [signers[name].key.keyID], threshold: 1 })]),
    )
    const keys = Object.fromEntries(topLevel.map((name) => [signers[name].key.keyID, signers[name].key]))
    const root = new Root({ ...base(1, expiry(now, 'root')), keys, roles, consistentSnapshot: true })
    await writeRole(scratch, 'root', root, signers.root)
    await writeFile(join(scratch, '1.root.json'), await readFile(join(scratch, 'root.json')))

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
    return true
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

async function loadSigners(keysDir: string): Promise<Readonly<Record<RoleName, Signer>>> {
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
    await access(join(keysDir, `${role}.pem`)).catch((cause: unknown) => {
      throw new MeshError('STATE_NOT_MASTER', `this machine does not have the site's ${role} key`, { cause })
    })
  }
}
