import { resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { ResetConfig, ServingConfig } from '../../state/state-directory.ts'
import type { Machine } from './machine.ts'
import type { AgentOptions } from './options.ts'

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

/**
 * What was said now and before about resets. What did not come from the configuration file is saved for the next time.
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

/** What was said of the other disks of this computer is kept for the next time. */
export async function rememberBeside({ state, config }: Machine, directories: readonly string[]): Promise<void> {
  const beside = directories.map((directory) => resolve(directory))
  const before = state.machine ?? config
  if (beside.length > 0 && !isDeepStrictEqual(beside, before.beside)) await state.saveMachine({ ...before, beside })
}

/** The addresses that were given for this and all later times; undefined if none were, or the configuration file says them. */
export function listenToRemember({
  listen,
  fromFile,
}: Pick<AgentOptions, 'listen' | 'fromFile'>): readonly string[] | undefined {
  return listen === undefined || listen.length === 0 || fromFile?.has('listen') === true ? undefined : listen
}
