import type { Command } from 'commander'
import type { AgentOptions } from '../../node/agent/machine/options.ts'
import { parseText } from './parse.ts'

/** What commander read of these options. */
export interface ResetFlags {
  resetCommand?: string
  warnCommand?: string
}

/** Adds the options that say how operators reset this machine; they are kept for the next time. */
export function withResetOptions(command: Command): Command {
  return command
    .option(
      '--reset-command <command>',
      'resets this machine when an operator asks for it, or none (default: systemctl reboot; none on the master and operators)',
      parseText,
    )
    .option('--warn-command <command>', 'shows what it reads to whoever uses the machine (default: wall)', parseText)
}

/** The flags as the agent takes them; `none` becomes no command. */
export function resetOf({ resetCommand, warnCommand }: ResetFlags): NonNullable<AgentOptions['reset']> {
  return {
    ...(resetCommand === undefined ? {} : { command: resetCommand === 'none' ? '' : resetCommand }),
    ...(warnCommand === undefined ? {} : { warnCommand }),
  }
}
