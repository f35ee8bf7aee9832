import { rm } from 'node:fs/promises'
import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { checkDocument } from '../../../protocol/document.ts'
import { type ErrorCode, isMeshError, MeshError } from '../../../protocol/errors.ts'
import { type Check, list, literal, natural, object, text, truth } from '../../../protocol/json-shape.ts'
import { callControl } from '../../control/control-client.ts'
import { isLent, lentKeys, makeSiteKey, pemOf, readKeyFile, writeKeyFile } from '../../trust/key-file.ts'
import { MAX_ROLE_KEYS } from '../../trust/limits.ts'
import { keysOf, SITE_ROLES, type SiteKey, SiteKeys, type SiteRole } from '../../trust/site-keys.ts'
import { SiteSigner } from '../../trust/site-signer.ts'
import type { TrustStore } from '../../trust/trust-store.ts'
import { isPrefixRole, type PrefixRole } from '../../trust/trusted-view.ts'
import { Machine } from '../machine/machine.ts'
import { notMaster, requireMaster } from '../machine/require-master.ts'
import { askWork, isServer } from '../machine/work.ts'
import { assertNew } from './assert-new.ts'

/** A role of the site, or one to which images are delegated. */
const isRole: Check<SiteRole | PrefixRole> = (value): value is SiteRole | PrefixRole =>
  typeof value === 'string' && (SITE_ROLES.some((role) => role === value) || isPrefixRole(value))

const CHANGE = {
  name: 'the request',
  fault: 'USAGE',
  shape: object({
    change: literal('rotate', 'renew', 'end'),
    role: isRole,
    /** Private keys that sign, too. */
    given: isLent,
    /** Ids of those that the role is to have; none: a new one that stays on this machine. */
    next: list(text(MAX_TEXT_BYTES), MAX_ROLE_KEYS),
    threshold: natural(MAX_ROLE_KEYS),
    dryRun: truth,
  }),
} as const

const isChanged = object({
  event: literal('keys-changed'),
  change: literal('rotate', 'renew', 'end'),
  role: isRole,
  dryRun: truth,
  root: natural(),
  threshold: natural(),
  keys: list(text(MAX_TEXT_BYTES), MAX_ROLE_KEYS),
})

type Of<C> = C extends (value: unknown) => value is infer T ? T : never
/** Result of `mesh site rotate` and `mesh site renew`: the version of the root, and the keys of the role by their ids. */
export type KeysChanged = Of<typeof isChanged>

/** What people say of a change of keys. */
interface ChangeOptions {
  readonly role: SiteRole | PrefixRole
  /** Sealed files of keys that sign, too. */
  readonly keyFiles: readonly string[]
  readonly dryRun: boolean
  /** The passphrase of the nth file of `keyFiles`. */
  readonly passphrase: (index: number, holds: string) => Promise<string>
  readonly command: string | undefined
}

interface RotateOptions extends ChangeOptions {
  /** Sealed files that are made, one for each new key; none: one new key that stays on this machine. */
  readonly files: readonly string[]
  /** How many of the new keys must sign. */
  readonly threshold: number
  /** The passphrase of the nth file of `files`. */
  readonly newPassphrase: (index: number) => Promise<string>
}

/** Refusals after which it is certain that nothing was signed. */
const REFUSALS: readonly ErrorCode[] = [
  'SITE_KEY_MISSING',
  'METADATA_FORKED',
  'USAGE',
  'STATE_NOT_MASTER',
  'STATE_BUSY',
  'STATE_IN_USE',
]

/**
 * Gives a role of the site new keys, on the master: one that stays there, or one in each of `files`. Errors: USAGE, SITE_KEY_MISSING if too few of
 * the keys that must sign are there, METADATA_FORKED, PASSPHRASE_WRONG, PASSPHRASE_WEAK, SEALED_DAMAGED, STATE_NOT_MASTER.
 */
export async function rotateKeys(stateDir: string, options: RotateOptions): Promise<KeysChanged> {
  const { role, files, threshold, dryRun, newPassphrase } = options
  const site = await siteOf(stateDir)
  assertPossible(role, files, threshold)
  for (const file of files) await assertNew(file)
  const given = await readGiven(site.siteId, options)
  const made: SiteKey[] = files.map(() => makeSiteKey())
  const written: string[] = []
  try {
    for (const [at, file] of files.entries()) {
      if (dryRun) continue
      await writeKeyFile(file, { own: made[at]!, role, ...site }, await newPassphrase(at))
      written.push(file)
    }
    const next = made.map(({ key }) => key.keyID)
    const all = [...given, ...made].map(pemOf)
    return await atMaster(stateDir, options, { change: 'rotate', role, given: all, next, threshold, dryRun })
  } catch (error) {
    // Whatever else went wrong, the keys may be in force already.
    if (isMeshError(error, ...REFUSALS)) for (const file of written) await rm(file, { force: true })
    throw error
  }
}

/** Signs a role anew for its whole life, on the master. Errors: as {@link rotateKeys}. */
export async function renewRole(stateDir: string, options: ChangeOptions): Promise<KeysChanged> {
  const { role, dryRun } = options
  const { siteId } = await siteOf(stateDir)
  const given = await readGiven(siteId, options)
  return atMaster(stateDir, options, { change: 'renew', role, given: given.map(pemOf), next: [], threshold: 0, dryRun })
}

/** Takes the images of a prefix back, on the master: what was published stays, signed by targets. Errors: as {@link rotateKeys}. */
export async function endDelegation(stateDir: string, options: ChangeOptions): Promise<KeysChanged> {
  const { role, dryRun } = options
  const { siteId } = await siteOf(stateDir)
  const given = await readGiven(siteId, options)
  return atMaster(stateDir, options, { change: 'end', role, given: given.map(pemOf), next: [], threshold: 0, dryRun })
}

/** Sealed files of keys, opened, as text that is lent to whoever signs. Errors: STATE_NOT_MASTER, and those of {@link readKeyFile}. */
export async function openKeyFiles(
  stateDir: string,
  options: Pick<ChangeOptions, 'keyFiles' | 'passphrase'>,
): Promise<string[]> {
  if (options.keyFiles.length === 0) return []
  return (await readGiven((await siteOf(stateDir)).siteId, options)).map(pemOf)
}

/** Sealed files of keys, opened, as text for whoever signs. Errors: as {@link readKeyFile}. */
async function readGiven(
  siteId: string,
  { keyFiles, passphrase }: Pick<ChangeOptions, 'keyFiles' | 'passphrase'>,
): Promise<SiteKey[]> {
  const given: SiteKey[] = []
  for (const [at, file] of keyFiles.entries())
    given.push(await readKeyFile(file, siteId, (holds) => passphrase(at, holds)))
  return given
}

function assertPossible(role: SiteRole | PrefixRole, files: readonly string[], threshold: number): void {
  if (isPrefixRole(role)) {
    if (files.length === 0) throw new MeshError('USAGE', 'name the file of the key that is to sign these images')
  } else if (files.length > 0 && role !== 'root' && role !== 'targets')
    throw new MeshError('USAGE', `the master signs with the ${role} key day by day: it stays there`)
  if (threshold > Math.max(1, files.length))
    throw new MeshError('USAGE', `${threshold} keys cannot sign: the role gets ${Math.max(1, files.length)}`)
  if (new Set(files).size < files.length) throw new MeshError('USAGE', 'each key needs a file of its own')
}

async function siteOf(stateDir: string): Promise<{ site: string; siteId: string }> {
  await requireMaster(stateDir)
  const machine = await Machine.look(stateDir)
  return { site: machine.config.site, siteId: toHex(machine.trust.siteId) }
}

/** Lets the command that serves here do it; if none does, this one. */
async function atMaster(
  stateDir: string,
  { command }: { command: string | undefined },
  params: Of<typeof CHANGE.shape>,
): Promise<KeysChanged> {
  const work = await askWork(stateDir)
  if (work !== undefined && isServer(work)) return callControl(stateDir, 'site-keys', isChanged, params)
  const machine = await Machine.open(stateDir, { command })
  try {
    return await changeKeys(machine, params)
  } finally {
    await machine.close()
  }
}

/** The control method `site-keys`, and what is done where no command serves. Errors: as {@link rotateKeys}. */
export async function changeKeys(machine: Machine, params: Readonly<Record<string, unknown>>): Promise<KeysChanged> {
  const { change, role, given, next, threshold, dryRun } = checkDocument(CHANGE, params)
  const { trust, state, config } = machine
  if (config.role !== 'master') throw notMaster(config)
  const keysDir = state.path('keys')
  const lent = lentKeys(given)
  const signerOf = (keys: readonly SiteKey[]): Promise<SiteSigner> => SiteSigner.open({ keysDir, trust, given: keys })
  if (change === 'renew') await (await signerOf(lent)).resign(role, { dryRun })
  else if (isPrefixRole(role)) {
    const keys = lent.filter((own) => next.includes(own.key.keyID)).map(({ key }) => key)
    const to = change === 'end' ? undefined : { keys, threshold: Math.max(1, threshold) }
    await (await signerOf(lent)).delegate(role, to, { dryRun })
  } else await rotate(machine, { role, lent, next, threshold, dryRun })
  const roles = await trust.roles()
  const { keys: named, threshold: needed } = keysOf(roles, role) ?? { keys: [], threshold: 0 }
  const keys = named.map(({ keyID }) => keyID)
  return {
    event: 'keys-changed',
    change,
    role,
    dryRun,
    root: roles.root.signed.version,
    threshold: needed,
    keys,
  }
}

async function rotate(
  { state, trust }: Machine,
  to: { role: SiteRole; lent: readonly SiteKey[]; next: readonly string[]; threshold: number; dryRun: boolean },
): Promise<void> {
  const { role, lent, next, threshold, dryRun } = to
  const keysDir = state.path('keys')
  const own = next.length === 0 ? makeSiteKey() : undefined
  const chosen = own === undefined ? lent.filter(({ key }) => next.includes(key.keyID)) : [own]
  const keys = chosen.map(({ key }) => key)
  try {
    // It is durable before anything names it.
    if (own !== undefined && !dryRun) await (await SiteKeys.load(keysDir)).add(own, role)
    const signer = await SiteSigner.open({ keysDir, trust, given: [...lent, ...chosen] })
    await signer.setKeys({ [role]: { keys, threshold: Math.max(1, threshold) } }, { dryRun })
  } finally {
    if (!dryRun) await removeUnnamed(keysDir, trust)
  }
}

/** Removes keys from the folder that no role names: those before, and what a change that was cut short has left. */
async function removeUnnamed(keysDir: string, trust: TrustStore): Promise<void> {
  const [keys, roles] = [await SiteKeys.load(keysDir), await trust.roles()]
  const named = new Set(SITE_ROLES.flatMap((role) => keysOf(roles, role)?.keys.map(({ keyID }) => keyID) ?? []))
  await keys.remove(keys.stored.filter((id) => !named.has(id)))
}
