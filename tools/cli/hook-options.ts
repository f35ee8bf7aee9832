import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { HookOptions } from '../../node/agent/machine/hooks.ts'
import { parseDuration } from './parse.ts'

/** What commander read of these options. `hookTimeout` in milliseconds. */
export interface HookFlags {
  hooks?: string
  hookTimeout?: number
}

/** Adds the options that name what runs after a restore. */
export function withHookOptions(command: Command): Command {
  return command
    .option('--hooks <directory>', 'after a restore run the executables in this directory, in the order of their names')
    .option('--hook-timeout <time>', 'how long each may take (default: 1m)', parseDuration)
}

/** The flags as the agent takes them. */
export function hooksOf({ hooks, hookTimeout }: HookFlags): { hooks?: HookOptions } {
  if (hooks === undefined) return {}
  return { hooks: { directory: resolve(hooks), ...(hookTimeout === undefined ? {} : { timeoutMs: hookTimeout }) } }
}
