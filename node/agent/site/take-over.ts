import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import type { KeyChanges } from '../../trust/key-change.ts'
import { makeSiteKey, readKeyFile } from '../../trust/key-file.ts'
import { keysOf, type SiteKey, SiteKeys, type SiteRole } from '../../trust/site-keys.ts'
import { SiteSigner } from '../../trust/site-signer.ts'
import { Machine } from '../machine/machine.ts'

/** Result of `mesh site takeover`. */
interface TakenOver {
  readonly event: 'site-taken'
  readonly dryRun: boolean
  readonly site: string
  /** This machine, which is the master now. */
  readonly name: string
  /** Version of the root that says so. */
  readonly root: number
  /** Names of the masters before, which are removed. */
  readonly removed: readonly string[]
  /** Whether releases are signed by a new key that is here; false: by the keys that were given. */
  readonly newTargets: boolean
}

interface TakeOverOptions {
  readonly keyFiles: readonly string[]
  readonly passphrase: (index: number, holds: string) => Promise<string>
  readonly dryRun: boolean
  readonly command: string | undefined
}

/**
 * Makes this machine, which is a member, the master of its site, by the keys of the root: all roles that signed on the master before get
 * new keys, and that master is removed. Machines follow untouched, since they let this one connect already. What was cut short is
 * run again. Errors: STATE_IN_USE, MEMBER_REMOVED, USAGE if this is the master, SITE_KEY_MISSING, PASSPHRASE_WRONG, SEALED_DAMAGED, DISK_FULL.
 */
export async function takeSiteOver(stateDir: string, options: TakeOverOptions): Promise<TakenOver> {
  const { dryRun, command } = options
  const machine = await Machine.open(stateDir, { command })
  try {
    machine.assertMember()
    const { trust, config } = machine
    if (config.role === 'master') throw new MeshError('USAGE', `${config.name} is the master of the site`)
    const isSigned = trust.view().memberById(config.id)?.role === 'master'
    const lent = isSigned ? [] : await lentKeys(machine, options)
    const removed = trust.view().members.filter(({ role, id }) => role === 'master' && id !== config.id)
    const newTargets = isSigned || (await signTakeOver(machine, lent, dryRun))
    // From here on it is the master; it is run again if it ended before.
    if (!dryRun) await machine.state.saveMachine({ ...machine.state.machine!, role: 'master' })
    const { root } = trust.view().versions
    const names = removed.map(({ name }) => name)
    return { event: 'site-taken', dryRun, site: config.site, name: config.name, root, removed: names, newTargets }
  } finally {
    await machine.close()
  }
}

/** Returns whether releases are signed by a new key. */
async function signTakeOver(machine: Machine, lent: readonly SiteKey[], dryRun: boolean): Promise<boolean> {
  const { trust, state, config } = machine
  const keysDir = state.path('keys')
  const roles = await trust.roles()
  const before = await SiteKeys.load(keysDir, lent)
  before.signers('root', keysOf(roles, 'root'))
  const newTargets = !before.canSign(keysOf(roles, 'targets'))
  const fresh: SiteRole[] = ['snapshot', 'timestamp', 'members', ...(newTargets ? (['targets'] as const) : [])]
  const made = fresh.map((role) => [role, makeSiteKey()] as const)
  if (!dryRun) {
    await state.subdirectory('keys', 0o700)
    // What an attempt before has left signs nothing.
    await before.remove(before.stored)
    for (const [role, own] of made) await before.add(own, role)
  }
  const changes: KeyChanges = Object.fromEntries(made.map(([role, { key }]) => [role, { keys: [key], threshold: 1 }]))
  const given = [...lent, ...made.map(([, own]) => own)]
  await SiteSigner.takeOver({ keysDir, trust, given }, { id: config.id, changes, dryRun })
  return newTargets
}

async function lentKeys({ trust }: Machine, { keyFiles, passphrase }: TakeOverOptions): Promise<SiteKey[]> {
  const lent: SiteKey[] = []
  for (const [at, file] of keyFiles.entries())
    lent.push(await readKeyFile(file, toHex(trust.siteId), (holds) => passphrase(at, holds)))
  return lent
}
