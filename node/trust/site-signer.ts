import assert from 'node:assert/strict'
import { isDeepStrictEqual } from 'node:util'
import { type MetaFile, Snapshot, Targets, Timestamp } from '@tufjs/models'
import type { Delegations } from '@tufjs/models/dist/delegations.js'
import { MAX_MEMBERS, MAX_METADATA_FILE_BYTES } from '../../protocol/constants.ts'
import { type DiskLayout, encodeLayout } from '../../protocol/disk-layout.ts'
import { MeshError } from '../../protocol/errors.ts'
import { decodeManifest, encodeManifest, type Manifest } from '../../protocol/manifest.ts'
import { findName, sameName } from '../../protocol/names.ts'
import { delegatePrefix, endDelegation, giveKeys, type KeyChanges, signRoot } from './key-change.ts'
import { FORK_STEP } from './limits.ts'
import { type MasterTerm, newTerm, readTerm, writeTerm } from './master-term.ts'
import { decodeMembers, encodeMembers, type Member } from './members.ts'
import { addTarget, base, LIFE_MS, writeRole } from './sign-role.ts'
import { keysOf, type RoleKeys, type SiteKey, SiteKeys, type SiteRole } from './site-keys.ts'
import type { TrustStore } from './trust-store.ts'
import {
  isPrefixRole,
  LAYOUT_FIELD,
  loadRoles,
  loadView,
  MEMBERS_ROLE,
  MEMBERS_TARGET,
  manifestTarget,
  type PrefixRole,
  removeUnnamedTargets,
  type SignedRoles,
  TERM_FIELD,
} from './trusted-view.ts'

/** The roles that sign targets. */
const TARGETS_ROLES = ['targets', MEMBERS_ROLE] as const
type TargetsRole = (typeof TARGETS_ROLES)[number]
/** The roles without which a master can do nothing. */
const ONLINE_ROLES = [MEMBERS_ROLE, 'snapshot', 'timestamp'] as const

type SignedField = Targets['unrecognizedFields'][string]

const DAY_MS = 24 * 3600 * 1000

/** What a {@link SiteSigner} works with. */
interface SignerOptions {
  readonly keysDir: string
  readonly trust: TrustStore
  /** Unix ms. @default Date.now */
  readonly now?: () => number
  /** Signs with versions far above those in force, because another machine has signed with the same keys. @default false */
  readonly over?: boolean
  /** Keys that sign besides those in the folder, and are not kept. */
  readonly given?: readonly SiteKey[]
}

/**
 * Signs for the master: releases, the member list, the metadata that keeps them fresh, and which keys may sign. The keys that are in
 * the folder (mode 0600) sign; those of root and targets may be elsewhere. The folder is read at each change.
 */
export class SiteSigner {
  readonly #trust: TrustStore
  readonly #keysDir: string
  readonly #given: readonly SiteKey[]
  readonly #now: () => number
  readonly #over: boolean

  private constructor({ trust, keysDir, now, over, given }: SignerOptions) {
    this.#trust = trust
    this.#keysDir = keysDir
    this.#given = given ?? []
    this.#now = now ?? Date.now
    this.#over = over ?? false
  }

  /**
   * Opens the signer of a site that exists. Errors: STATE_NOT_MASTER if the keys are not here with which a master signs day by day
   * (members, snapshot, timestamp), STATE_CORRUPT.
   */
  static async open(options: SignerOptions): Promise<SiteSigner> {
    const { keysDir, trust, given } = options
    const [keys, roles] = [await SiteKeys.load(keysDir, given), await trust.roles()]
    const missing = ONLINE_ROLES.find((role) => !keys.canSign(keysOf(roles, role)))
    if (missing === undefined) return new SiteSigner(options)
    const why = keys.isEmpty ? `there is no key in ${keysDir}` : `none of the keys in ${keysDir} is the ${missing} key`
    throw new MeshError('STATE_NOT_MASTER', `this machine cannot sign for the site: ${why}`)
  }

  /**
   * Hands the site to a member, by the keys of the root: roles get other keys, that member becomes the master, and the masters before are
   * removed; with versions far above those in force. All of it is one generation. Errors: SITE_KEY_MISSING, DISK_FULL.
   */
  static async takeOver(
    options: Omit<SignerOptions, 'over'>,
    { id, changes, dryRun }: { readonly id: string; readonly changes: KeyChanges; readonly dryRun: boolean },
  ): Promise<void> {
    const signer = new SiteSigner({ ...options, over: true })
    await signer.#change(async (scratch, roles) => {
      const { members, removed } = options.trust.view()
      const at = new Date(signer.#now()).toISOString()
      const gone = members.filter((member) => member.role === 'master' && member.id !== id)
      const left = members.filter((member) => !gone.includes(member))
      const list = left.map((member): Member => (member.id === id ? { ...member, role: 'master' } : member))
      const out = gone.map(({ id: key, name }) => ({ id: key, name, at }))
      roles.members.signed.addTarget(
        await addTarget(scratch, MEMBERS_TARGET, encodeMembers(list, [...removed, ...out])),
      )
      return [MEMBERS_ROLE, ...giveKeys(roles, changes)]
    }, dryRun)
  }

  /**
   * Why this master does not sign now: another one signs for the site, or this one was put back from a backup and has not begun yet;
   * METADATA_FORKED. Undefined if it signs.
   */
  async superseded(): Promise<MeshError | undefined> {
    return whyNot(await readTerm(this.#keysDir), await this.#trust.roles())
  }

  /**
   * Begins the term of a master that was put back from a backup: all that is signed here is signed anew, with versions far above those
   * in force. Returns whether there was one to begin. Errors: DISK_FULL, STATE_UNWRITABLE.
   */
  async claim(): Promise<boolean> {
    const { claims } = await readTerm(this.#keysDir)
    if (!claims) return false
    const { trust, keysDir, now } = { trust: this.#trust, keysDir: this.#keysDir, now: this.#now }
    return new SiteSigner({ trust, keysDir, now, over: true }).#change(async () => [])
  }

  /** Errors: SITE_KEY_MISSING if releases of an image cannot be signed by the keys that are here. */
  async assertPublishes(image: string): Promise<void> {
    const [keys, roles] = [await SiteKeys.load(this.#keysDir, this.#given), await this.#trust.roles()]
    const role = publisherOf(manifestTarget(image, 1), roles, keys)
    keys.signers(role, keysOf(roles, role))
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
      const role = publisherOf(target.path, roles, await SiteKeys.load(this.#keysDir, this.#given))
      const signing = isPrefixRole(role) ? roles.delegated.get(role)! : roles.targets
      signing.signed.addTarget(target)
      return [role]
    })
  }

  /**
   * Adds a member, or replaces the member with the same id. A member that is in the list exactly like this changes
   * nothing. `replaces`: id of the member that this machine was before it lost its key; that key is listed as removed, in the same
   * change. A key that is listed as removed does not come in again. Errors: MEMBER_REMOVED, NAME_TAKEN, SITE_FULL, DISK_FULL, STATE_UNWRITABLE.
   */
  async addMember(member: Member, { replaces }: { readonly replaces?: string | undefined } = {}): Promise<void> {
    await this.#change(async (scratch, roles) => {
      const view = this.#trust.view()
      const { members } = view
      if (members.some((old) => isDeepStrictEqual({ ...old, added: '' }, { ...member, added: '' }))) return undefined
      if (view.removed.some(({ id }) => id === member.id))
        throw new MeshError('MEMBER_REMOVED', `the key of ${member.name} was removed from the site`)
      const before = members.find(({ id }) => id === replaces && id !== member.id)
      const others = members.filter((other) => other.id !== member.id && other !== before)
      const namesake = others.find(({ name }) => sameName(name, member.name))
      if (namesake !== undefined)
        throw new MeshError('NAME_TAKEN', `a machine named ${namesake.name} is already a member`)
      if (others.length >= MAX_MEMBERS) throw new MeshError('SITE_FULL', `the site has ${MAX_MEMBERS} members`)
      const at = new Date(this.#now()).toISOString()
      const gone = before === undefined ? [] : [{ id: before.id, name: before.name, at }]
      const bytes = encodeMembers([...others, member], [...view.removed, ...gone])
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

  /** Signs every role but root anew whose life is more than half over and whose keys are here. Returns whether there was one. */
  async renew(): Promise<boolean> {
    const keys = await SiteKeys.load(this.#keysDir, this.#given)
    const isDue = (role: SiteRole, roles: SignedRoles): boolean =>
      Date.parse(roles[role].signed.expires) - this.#now() < LIFE_MS[role] / 2 && keys.canSign(keysOf(roles, role))
    const roles = await this.#trust.roles()
    if (!(['targets', MEMBERS_ROLE, 'snapshot', 'timestamp'] as const).some((role) => isDue(role, roles))) return false
    return this.#change(async (_scratch, now) => TARGETS_ROLES.filter((role) => isDue(role, now)))
  }

  /**
   * Gives roles other keys. A root is signed by as many of the keys before as had to sign, and of the new ones; what the other roles
   * have signed is signed anew. All of it is one generation. `dryRun`: all is signed and proven, and nothing kept. Errors:
   * SITE_KEY_MISSING, METADATA_FORKED, DISK_FULL.
   */
  async setKeys(changes: KeyChanges, { dryRun = false }: { readonly dryRun?: boolean } = {}): Promise<void> {
    await this.#change(async (_scratch, roles) => giveKeys(roles, changes), dryRun)
  }

  /**
   * Delegates the images of a prefix to these keys, in place of others that they were delegated to; undefined: takes them back. Errors: as
   * {@link setKeys}, USAGE if there is nothing to take back.
   */
  async delegate(
    role: PrefixRole,
    given: RoleKeys | undefined,
    { dryRun = false }: { readonly dryRun?: boolean } = {},
  ): Promise<void> {
    await this.#change(
      async (_scratch, roles) =>
        given === undefined ? endDelegation(roles, role) : delegatePrefix(roles, role, given, this.#now()),
      dryRun,
    )
  }

  /** Signs a role anew, valid from now on for its whole life. Errors: as {@link setKeys}. */
  async resign(role: SiteRole | PrefixRole, { dryRun = false }: { readonly dryRun?: boolean } = {}): Promise<void> {
    await this.#change(async () => [role], dryRun)
  }

  /**
   * Changes roles in the next generation. `edit` returns the changed roles, if any. Snapshot and timestamp follow every
   * change.
   */
  async #change(
    edit: (scratch: string, roles: SignedRoles) => Promise<readonly (SiteRole | PrefixRole)[] | undefined>,
    dryRun = false,
  ): Promise<boolean> {
    const made = await this.#trust.change(async (scratch) => {
      const keys = await SiteKeys.load(this.#keysDir, this.#given)
      const roles = await loadRoles(scratch)
      const before = keysOf(roles, 'root')!
      const own = await readTerm(this.#keysDir)
      const why = this.#over ? undefined : whyNot(own, roles)
      if (why !== undefined) throw why
      const changed = await edit(scratch, roles)
      if (changed === undefined) return undefined
      if (changed.includes('root'))
        await signRoot(scratch, roles.root, { keys, before, after: keysOf(roles, 'root')!, now: this.#now() })
      const { meta } = roles.snapshot.signed
      for (const role of TARGETS_ROLES.filter((one) => changed.includes(one) || this.#follows(one, roles, keys)))
        meta[`${role}.json`] = await this.#signTargets(scratch, role, roles, keys)
      for (const role of changed.filter(isPrefixRole))
        meta[`${role}.json`] = await this.#signTargets(scratch, role, roles, keys)
      const snapshot = new Snapshot({
        ...this.#next('snapshot', roles),
        meta,
        unrecognizedFields: roles.snapshot.signed.unrecognizedFields,
      })
      const snapshotMeta = await writeRole(scratch, 'snapshot', snapshot, signersOf('snapshot', roles, keys))
      // Whatever key is missing is known by now.
      const term = this.#over ? await this.#newTerm(own, dryRun) : own.term
      const timestamp = new Timestamp({
        ...this.#next('timestamp', roles),
        snapshotMeta,
        unrecognizedFields: {
          ...roles.timestamp.signed.unrecognizedFields,
          ...(term === undefined ? {} : { [TERM_FIELD]: term }),
        },
      })
      await writeRole(scratch, 'timestamp', timestamp, signersOf('timestamp', roles, keys))
      await removeUnnamedTargets(scratch, roles)
      // The generation is proven, as every machine will prove it, before it is in force.
      const view = await loadView(scratch)
      return dryRun ? undefined : view
    })
    const term = await readTerm(this.#keysDir)
    if (made && term.claims) await writeTerm(this.#keysDir, { ...term, claims: false })
    return made
  }

  /** Whoever signs over another master begins a new term, which is durable before anything is signed in it. */
  async #newTerm(own: MasterTerm, dryRun: boolean): Promise<string | undefined> {
    const next = own.claims ? own : newTerm()
    if (!dryRun) await writeTerm(this.#keysDir, next)
    return next.term
  }

  /** Whether a role is signed anew with every change: what was signed by a clock that was ahead would be valid for too long. */
  #follows(role: TargetsRole, roles: SignedRoles, keys: SiteKeys): boolean {
    const isTooLong = Date.parse(roles[role].signed.expires) > this.#now() + LIFE_MS[role] + DAY_MS
    return (this.#over || isTooLong) && keys.canSign(keysOf(roles, role))
  }

  #signTargets(scratch: string, role: TargetsRole | PrefixRole, roles: SignedRoles, keys: SiteKeys): Promise<MetaFile> {
    const signed = isPrefixRole(role) ? signedOf(role, roles) : roles[role].signed
    const next = new Targets({
      ...this.#base(isPrefixRole(role) ? 'targets' : role, signed.version),
      targets: signed.targets,
      ...delegationsOf(signed),
      // What a later version has added stays.
      unrecognizedFields: signed.unrecognizedFields,
    })
    return writeRole(scratch, role, next, signersOf(role, roles, keys))
  }

  #next(role: SiteRole, roles: SignedRoles): ReturnType<typeof base> {
    return this.#base(role, roles[role].signed.version)
  }

  #base(role: SiteRole, version: number): ReturnType<typeof base> {
    return base(role, version + (this.#over ? FORK_STEP : 1), this.#now())
  }
}

function whyNot({ term, claims }: MasterTerm, { timestamp }: SignedRoles): MeshError | undefined {
  if (timestamp.signed.unrecognizedFields[TERM_FIELD] === term) return undefined
  const text = claims
    ? 'this master was put back from a backup, and has not heard from any machine of the site what was signed since; start some of them'
    : 'another master, which was put back from a backup of this one, signs for the site'
  return new MeshError('METADATA_FORKED', text)
}

/** Errors: USAGE if nothing is delegated to that role. */
function signedOf(role: PrefixRole, { delegated }: SignedRoles): Targets {
  const metadata = delegated.get(role)
  if (metadata === undefined) throw new MeshError('USAGE', `the site delegates no images to the role ${role}`)
  return metadata.signed
}

/** Which role signs a release: the one that its images were delegated to, if its keys are here, else targets. */
function publisherOf(path: string, roles: SignedRoles, keys: SiteKeys): 'targets' | PrefixRole {
  const given = roles.targets.signed.delegations?.roles ?? {}
  const role = [...roles.delegated.keys()].find((one) => given[one]?.isDelegatedPath(path) === true)
  return role !== undefined && keys.canSign(keysOf(roles, role)) ? role : 'targets'
}

function signersOf(role: SiteRole | PrefixRole, roles: SignedRoles, keys: SiteKeys): SiteKey[] {
  return keys.signers(role, keysOf(roles, role))
}

function delegationsOf(signed: Targets): { delegations?: Delegations } {
  return signed.delegations === undefined ? {} : { delegations: signed.delegations as Delegations }
}
