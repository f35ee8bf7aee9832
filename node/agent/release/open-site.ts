import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { isPlaceName } from '../../../protocol/names.ts'
import type { MachineConfig } from '../../state/machine-config.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { createSite } from '../../trust/create-site.ts'
import { loadOrCreateMachineKey } from '../../trust/machine-key.ts'
import { TrustStore } from '../../trust/trust-store.ts'
import type { AgentEvent } from '../machine/events.ts'
import { holdState } from '../machine/hold-state.ts'
import { macAddresses } from '../machine/mac-addresses.ts'
import { Machine, type OpenOptions } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'

/** What a site and its master are called, if {@link openSite} has to create them. */
export interface NewSite {
  /** @default 'lab' */
  readonly site?: string | undefined
  /** Name of the master. @default 'master' */
  readonly name?: string | undefined
  /** Multiaddrs that the master listens on, now and later. */
  readonly listen: readonly string[]
}

/**
 * Opens the master's state directory. If it belongs to no site yet, a site is created, and a note says so.
 * Errors: STATE_NOT_MASTER on a machine that joined a site, USAGE, and those of the state directory.
 */
export async function openSite(
  stateDir: string,
  created: NewSite,
  options: OpenOptions & Required<Pick<AgentOptions, 'report'>>,
): Promise<Machine> {
  const state = await holdState(stateDir, { create: true, command: options.command })
  try {
    if (state.machine === undefined) await createMaster(state, created, options.report)
    else assertMayPublish(state.machine)
    return await Machine.from(state, options)
  } catch (error) {
    await state.close()
    throw error
  }
}

/** Only the master publishes. Errors: STATE_NOT_MASTER. */
export function assertMayPublish({ name, site, role }: MachineConfig): void {
  if (role === 'master') return
  const what = role === 'operator' ? 'an operator’s machine' : 'a lab machine'
  throw new MeshError('STATE_NOT_MASTER', `${name} joined site ${site} as ${what}`)
}

async function createMaster(
  state: StateDirectory,
  { site = 'lab', name = 'master', listen }: NewSite,
  report: (event: AgentEvent) => void,
): Promise<void> {
  if (!isPlaceName(site)) throw new MeshError('USAGE', `${JSON.stringify(site)} is no name of a site`)
  const { id } = await loadOrCreateMachineKey(state.path('identity.pem'))
  const trustDir = state.path('trust')
  const mac = await macAddresses()
  const master = { id, name, role: 'master', site, group: site, mac, added: new Date().toISOString() } as const
  await createSite({ keysDir: state.path('keys'), trustDir, master })
  const { siteId } = await TrustStore.open(trustDir)
  await state.saveMachine({ site, siteId: toHex(siteId), name, id, role: 'master', listen })
  const text = `created site ${site}; run \`mesh site backup FILE\` and keep that file in a safe place: without it nobody can publish again if this computer breaks`
  report({ type: 'note', text })
}
