import { constants as osConstants } from 'node:os'
import { isatty } from 'node:tty'
import { type Command, Option } from 'commander'
import type { AgentOptions } from '../../node/agent/machine/options.ts'
import { systemLimit } from '../../node/disk/system-limit.ts'
import { EXIT, isMeshError } from '../../protocol/errors.ts'
import { configOf, optionsFromFile } from './config/apply-config.ts'
import type { ConfigValues } from './config/config-keys.ts'
import { Output } from './output.ts'
import { parseAddress } from './parse.ts'
import { VERSION } from './version.ts'

/** Options that every command has. */
interface GlobalOptions {
  readonly state: string
  readonly config?: string
  readonly json: boolean
  readonly quiet: boolean
  readonly listen: string[]
  readonly mdns: boolean
}

/** What a command works with. */
export interface Context {
  readonly output: Output
  readonly stateDir: string
  readonly signal: AbortSignal
  /** The options that the agent's functions share. */
  readonly agent: AgentOptions
  /** What the configuration file says, whether or not an option has it as its default. */
  readonly config: ConfigValues
  /** The command line, as commander parsed it. */
  readonly command: Command
}

/** Heading of the options that every command has, in the help. */
export const COMMON_GROUP = 'Options of every command:'
const DEFAULT_STATE = '/var/lib/lab-mesh'

/**
 * Adds the options that may stand before or after the name of a command. The program reads them in both places; a
 * command has them for its help. Options about the network mean nothing to commands that do not use it.
 */
export function withCommonOptions(command: Command): Command {
  const options = [
    new Option('--state <dir>', 'state directory of this machine')
      .env('MESH_STATE')
      .default(DEFAULT_STATE, DEFAULT_STATE),
    new Option('--config <file>', 'configuration file (default: /etc/lab-mesh/mesh.toml, if there is one)').env(
      'MESH_CONFIG',
    ),
    new Option('--json', 'events as JSON lines; the last line is the result').default(false),
    new Option('--quiet', 'only the result and errors').default(false),
    new Option('--listen <multiaddr>', 'address to listen on, such as /ip4/0.0.0.0/tcp/7433 (repeatable)')
      .argParser(collect)
      .default([]),
    new Option('--no-mdns', 'do not look for peers by multicast DNS'),
  ]
  for (const option of options) command.addOption(option.helpGroup(COMMON_GROUP))
  return command
}

function collect(value: string, before: string[]): string[] {
  return [...before, parseAddress(value)]
}

/** Wraps the work of a command: makes its context, passes Ctrl-C on, prints the outcome, sets the exit code. */
export function action<Options extends object, Args extends unknown[]>(
  run: (context: Context, options: Options, ...args: Args) => Promise<void>,
): (...all: unknown[]) => Promise<void> {
  return async (...all) => {
    // Commander passes the arguments, then the options, then the command.
    const args = all.slice(0, -2) as Args
    const command = all.at(-1) as Command
    const options: Options & GlobalOptions = command.optsWithGlobals()
    const output = new Output({ json: options.json, quiet: options.quiet })
    const stop = new AbortController()
    const end = stopOnSignals(stop, output)
    const config = configOf(command)?.values ?? {}
    const agent: AgentOptions = {
      stateDir: options.state,
      command: nameOf(command),
      version: VERSION,
      listen: options.listen,
      mdns: options.mdns,
      configured: {
        ...(config.disk === undefined ? {} : { disk: config.disk }),
        ...(config.image === undefined ? {} : { image: config.image }),
      },
      fromFile: optionsFromFile(command),
      signal: stop.signal,
      report: (event) => output.event(event),
    }
    try {
      await run({ output, stateDir: options.state, signal: stop.signal, agent, config, command }, options, ...args)
      output.close()
    } catch (error) {
      output.close()
      process.exitCode = reportError(output, error)
    } finally {
      end()
    }
  }
}

/**
 * The first signal asks the command to stop cleanly, the second ends it at once. SIGHUP says that the terminal went away: a
 * command that uses none, as below nohup(1), goes on. Whether nohup has had the signal ignored cannot be seen, since Node sets
 * all signals to their defaults when it begins.
 */
function stopOnSignals(stop: AbortController, output: Output): () => void {
  const hasTerminal = [0, 1, 2].some((fd) => isatty(fd))
  const onSignal = (signal: NodeJS.Signals): void => {
    if (signal === 'SIGHUP' && !hasTerminal) return
    if (stop.signal.aborted) {
      // A bar hides the cursor.
      output.close()
      process.exit(128 + (osConstants.signals[signal] ?? 0))
    }
    stop.abort()
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const signal of signals) process.on(signal, onSignal)
  return () => {
    for (const signal of signals) process.off(signal, onSignal)
  }
}

/** `roll start` of a command of a command. */
function nameOf(command: Command): string {
  const above = command.parent
  return above === null || above.parent === null ? command.name() : `${nameOf(above)} ${command.name()}`
}

function reportError(output: Output, thrown: unknown): number {
  // Wherever a limit was reached, whatever it was taken for there.
  const error = systemLimit(thrown) ?? thrown
  if (isMeshError(error)) {
    output.error(error)
    return error.exitCode
  }
  output.unexpected(error)
  return EXIT.unexpected
}
