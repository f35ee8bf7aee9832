/**
 * The folder tools/cli is the command `mesh`: words in, calls of node/agent, words out.
 * - `command-line` reads the words; each file of `commands` is one command, and is loaded only when it is called.
 * - `config` reads the configuration file, whose values become the defaults of options; `parse` reads single values.
 * - `*-options` are options that several commands have; `output` prints what happens, for people or as JSON.
 * - `install` writes the systemd units.
 */

import { Command, CommanderError } from 'commander'
import { systemLimit } from '../../node/disk/system-limit.ts'
import { EXIT, isMeshError, MeshError } from '../../protocol/errors.ts'
import { withCommonOptions } from './command.ts'
import { applyConfig } from './config/apply-config.ts'
import { addTopics, describeExitCodes, EXIT_CODES_TOPIC, HELP } from './help.ts'
import { Output } from './output.ts'
import { VERSION } from './version.ts'

const COMMANDS = {
  seed: () => import('./commands/seed.ts'),
  invite: () => import('./commands/invite.ts'),
  join: () => import('./commands/join.ts'),
  enrol: () => import('./commands/enrol.ts'),
  machines: () => import('./commands/machines.ts'),
  approve: () => import('./commands/approve.ts'),
  refuse: () => import('./commands/refuse.ts'),
  remove: () => import('./commands/remove.ts'),
  restore: () => import('./commands/restore.ts'),
  up: () => import('./commands/up.ts'),
  monitor: () => import('./commands/monitor.ts'),
  log: () => import('./commands/log.ts'),
  verify: () => import('./commands/verify.ts'),
  releases: () => import('./commands/releases.ts'),
  rollback: () => import('./commands/rollback.ts'),
  status: () => import('./commands/status.ts'),
  peers: () => import('./commands/peers.ts'),
  lab: () => import('./commands/lab.ts'),
  config: () => import('./commands/config.ts'),
  install: () => import('./commands/install.ts'),
  site: () => import('./commands/site.ts'),
  layout: () => import('./commands/layout.ts'),
  boot: () => import('./commands/boot.ts'),
  roll: () => import('./commands/roll.ts'),
  receipts: () => import('./commands/receipts.ts'),
}

/** A command by its name; it is loaded only when it is wanted. */
type CommandName = keyof typeof COMMANDS

/** The program with these of its commands, all if none are named. */
export async function makeProgram(
  names: readonly CommandName[] = Object.keys(COMMANDS) as CommandName[],
): Promise<Command> {
  const program = withCommonOptions(new Command('mesh'))
    .description('Restores the disks of a computer lab from each other.')
    .version(VERSION)
    // Usage errors are printed by whoever runs it, like every other error.
    .configureOutput({ outputError: () => undefined })
    .configureHelp(HELP)
    .exitOverride()
  addTopics(program)
  for (const { command } of await Promise.all(names.map((name) => COMMANDS[name]()))) {
    program.addCommand(inherit(command(), program))
  }
  return program
}

/** Parses the arguments and runs the command; sets `process.exitCode`. Commands are loaded only when they are run. */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  // `npm run mesh` changes to the package's folder, but the user gave paths from where he stands.
  if (process.env.npm_lifecycle_event === 'mesh' && process.env.INIT_CWD !== undefined)
    process.chdir(process.env.INIT_CWD)
  // A reader that goes away (`mesh restore --json | head -1`), or a full disk below a log file, must neither stop the work nor
  // decide its exit code.
  process.stdout.on('error', tellLostOutput)
  process.stderr.on('error', () => undefined)
  const json = args.includes('--json')
  process.on('uncaughtException', (error) => {
    new Output({ json, quiet: true }).unexpected(error)
    process.exit(EXIT.unexpected)
  })
  if (args[0] === 'help' && args[1] === EXIT_CODES_TOPIC) {
    process.stdout.write(`${describeExitCodes()}\n`)
    return
  }
  // The command that is meant is among the named ones. If none is named, all are loaded to list them.
  const named = (Object.keys(COMMANDS) as CommandName[]).filter((name) => args.includes(name))
  const program = await makeProgram(named.length > 0 ? named : undefined)
  program.hook('preSubcommand', async (_, command) => {
    if (command.name() !== 'config' && !args.includes('--help') && !args.includes('-h'))
      await applyConfig(program, command)
  })
  try {
    await program.parseAsync(args, { from: 'user' })
  } catch (thrown) {
    const error = systemLimit(thrown) ?? thrown
    if (isMeshError(error)) {
      new Output({ json, quiet: true }).error(error)
      process.exitCode = error.exitCode
      return
    }
    if (!(error instanceof CommanderError)) throw error
    const asked =
      error.code === 'commander.helpDisplayed' || error.code === 'commander.version' || error.code === 'commander.help'
    if (asked && error.exitCode === 0) return
    process.exitCode = EXIT.usage
    // Without a command the help has been printed already.
    const message = error.code === 'commander.help' ? 'no command given' : error.message.replace(/^error: /, '')
    new Output({ json, quiet: true }).error(new MeshError('USAGE', message))
  }
}

/**
 * Gives a command, and its own commands, the settings of its parent, so that with --json every message is JSON, also
 * about a wrong call.
 */
function inherit(command: Command, parent: Command): Command {
  command.exitOverride().copyInheritedSettings(parent)
  for (const one of command.commands) inherit(one, parent)
  return command
}

let isOutputLost = false

/** Whoever reads the output has gone on purpose. That a file could not take it is told, once. */
function tellLostOutput({ code }: NodeJS.ErrnoException): void {
  if (isOutputLost || code === 'EPIPE' || code === 'ERR_STREAM_DESTROYED') return
  isOutputLost = true
  process.stderr.write(`mesh: warning: the output cannot be written (${code}); the work goes on\n`)
}
