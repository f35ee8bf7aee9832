import { resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { ResetConfig, ServingConfig } from '../../state/machine-config.ts'
import type { Machine } from './machine.ts'
import type { AgentOptions } from './options.ts'

/**
 * What the user says about serving, this time and before. What is said this time is saved for the next, unless the configuration file
 * says it: the file will say it again. Errors: DISK_FULL, STATE_UNWRITABLE.
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

/** `said` goes before `before`; null takes back what was said before. */
function merge(before: ServingConfig | undefined, said: [string, unknown][]): ServingConfig {
  const all = Object.entries({ ...before, ...Object.fromEntries(said) })
  return Object.fromEntries(all.filter(([, value]) => value !== null))
}

/**
 * What the user says about resets, this time and before; saved as by {@link rememberServing}.
 * Errors: DISK_FULL, STATE_UNWRITABLE.
 */
export async function rememberReset(
  machine: Machine,
  { reset: said = {}, fromFile }: Pick<AgentOptions, 'reset' | 'fromFile'>,
): Promise<ResetConfig> {
  const config = machine.state.machine ?? machine.config
  const { command, warnCommand } = said
  const kept: ResetConfig = {
    ...config.reset,
    ...(command === undefined || fromFile?.has('resetCommand') === true ? {} : { command }),
    ...(warnCommand === undefined || fromFile?.has('warnCommand') === true ? {} : { warnCommand }),
  }
  if (!isDeepStrictEqual(kept, config.reset ?? {})) await machine.state.saveMachine({ ...config, reset: kept })
  return { ...kept, ...said }
}

/** Saves which other disks of this computer the user has named. Naming none leaves those of before. */
export async function rememberBeside({ state, config }: Machine, directories: readonly string[]): Promise<void> {
  const beside = directories.map((directory) => resolve(directory))
  const before = state.machine ?? config
  if (beside.length > 0 && !isDeepStrictEqual(beside, before.beside)) await state.saveMachine({ ...before, beside })
}

/** The addresses to listen on that are to be saved. Undefined if the user gave none, or if the configuration file says them. */
export function listenToRemember({
  listen,
  fromFile,
}: Pick<AgentOptions, 'listen' | 'fromFile'>): readonly string[] | undefined {
  return listen === undefined || listen.length === 0 || fromFile?.has('listen') === true ? undefined : listen
}
