import { getPriority, setPriority } from 'node:os'
import { isDeepStrictEqual } from 'node:util'
import { parseUplinkRule } from '../../../protocol/uplink-rule.ts'
import type { ServeLimits } from '../../exchange/serve/serve-pace.ts'
import type { UplinkLimit } from '../../exchange/uplink/uplink-pace.ts'
import type { ServingConfig } from '../../state/state-directory.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { IN_USE_CPU_SHARE, IN_USE_RATE_SHARE, SERVING_NICE } from './limits.ts'

/**
 * What was said now and before. What did not come from the configuration file is saved for the next time.
 * Errors: DISK_FULL, STATE_UNWRITABLE.
 */
export async function rememberServing(
  machine: Machine,
  { serving: said = {}, fromFile }: Pick<AgentOptions, 'serving' | 'fromFile'>,
): Promise<ServingConfig> {
  const { state } = machine
  const config = state.machine ?? machine.config
  const given = Object.entries(said).filter(([, value]) => value !== undefined)
  const kept = given.filter(([name]) => fromFile?.has(name) !== true)
  const serving = merge(config.serving, kept)
  if (kept.length > 0 && !isDeepStrictEqual(serving, config.serving)) await state.saveMachine({ ...config, serving })
  return merge(serving, given)
}

/** Null takes back what was said before. */
function merge(before: ServingConfig | undefined, said: [string, unknown][]): ServingConfig {
  const all = Object.entries({ ...before, ...Object.fromEntries(said) })
  return Object.fromEntries(all.filter(([, value]) => value !== null))
}

/** What serving may take: all it wants while nobody uses the machine, unless the user said otherwise. */
export function limitsOf(config: ServingConfig, inUse: boolean): ServeLimits {
  const { maxUpload, maxCpu, maxPeers } = config
  const cpuShare = inUse ? Math.min(maxCpu ?? 1, IN_USE_CPU_SHARE) : maxCpu
  return {
    ...(maxUpload === undefined ? {} : { bytesPerSecond: maxUpload * (inUse ? IN_USE_RATE_SHARE : 1) }),
    ...(cpuShare === undefined ? {} : { cpuShare }),
    ...(maxPeers === undefined ? {} : { peers: maxPeers }),
  }
}

/** What may cross the uplink; undefined: all that there is. Errors: USAGE. */
export function uplinkOf({ uplink, uplinkStrict = false }: ServingConfig): UplinkLimit | undefined {
  return uplink === undefined ? undefined : { rules: parseUplinkRule(uplink), strict: uplinkStrict }
}

/** Lets everything else on this machine go first. Threads that are made later inherit it. */
export function stepBack({ nice = SERVING_NICE }: ServingConfig): void {
  if (nice > getPriority()) setPriority(nice)
}
