import { constants as osConstants } from 'node:os'
import { Command, CommanderError, Option } from 'commander'
import type { AgentOptions } from '../node/agent/agent.ts'
import { EXIT, isMeshError, MeshError } from '../protocol/errors.ts'
import { Output } from './output.ts'
import { VERSION } from './version.ts'

/** Options that every command has. */
export interface GlobalOptions {
  readonly state: string
  readonly json: boolean
  readonly quiet: boolean
  readonly listen: string[]
  readonly mdns: boolean
}

/** What a command gets to work with. */
export interface Context {
  readonly output: Output
  readonly stateDir: string
  readonly signal: AbortSignal
  /** The options that the agent's functions share. */
  readonly agent: AgentOptions
}

export const DEFAULT_STATE = '/var/lib/lab-mesh'

/** Adds the options of every command; those about the network mean nothing to commands that do not use it. */
export function withCommonOptions(command: Command): Command {
  return command
    .addOption(new Option('--state <dir>', 'state directory of this machine').env('MESH_STATE').default(DEFAULT_STATE))
    .option('--json', 'events as JSON lines; the last line is the result', false)
    .option('--quiet', 'only the result and errors', false)
    .option('--listen <multiaddr>', 'address to listen on, such as /ip4/0.0.0.0/tcp/7433 (repeatable)', collect, [])
    .option('--no-mdns', 'do not look for peers by multicast DNS')
}

function collect(value: string, before: string[]): string[] {
  return [...before, value]
}

/** Wraps what a command does: builds its context, passes Ctrl-C on, prints the outcome, sets the exit code. */
export function action<Options extends object, Args extends unknown[]>(
  run: (context: Context, options: Options, ...args: Args) => Promise<void>,
): (...all: unknown[]) => Promise<void> {
  return async (...all) => {
    // Commander passes the arguments, then the options, then the command.
    const args = all.slice(0, -2) as Args
    const options = all.at(-2) as Options & GlobalOptions
    const output = new Output({ json: options.json, quiet: options.quiet })
    const stop = new AbortController()
    const end = stopOnSignals(stop)
    const agent: AgentOptions = {
      stateDir: options.state,
      listen: options.listen,
      mdns: options.mdns,
      signal: stop.signal,
      report: (event) => output.event(event),
    }
    try {
      await run({ output, stateDir: options.state, signal: stop.signal, agent }, options, ...args)
      output.close()
    } catch (error) {
      output.close()
      process.exitCode = reportError(output, error)
    } finally {
      end()
    }
  }
}

/** The first signal asks the command to stop cleanly, the second ends it at once. */
function stopOnSignals(stop: AbortController): () => void {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  const onSignal = (signal: NodeJS.Signals): void => {
    if (stop.signal.aborted) process.exit(128 + (osConstants.signals[signal] ?? 0))
    stop.abort()
  }
  for (const signal of signals) process.on(signal, onSignal)
  return () => {
    for (const signal of signals) process.off(signal, onSignal)
  }
}

function reportError(output: Output, error: unknown): number {
  if (isMeshError(error)) {
    output.error(error)
    return error.exitCode
  }
  output.unexpected(error)
  return EXIT.unexpected
}

/** Parses the arguments and runs the command; sets `process.exitCode`. Commands are loaded only when they are run. */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  // `npm run mesh` changes to the package's folder; paths are meant from where the user stands.
  if (process.env.npm_lifecycle_event === 'mesh' && process.env.INIT_CWD !== undefined)
    process.chdir(process.env.INIT_CWD)
  // A reader that has seen enough (`mesh status | head -1`) is no fault.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit(0)
  })
  const program = new Command('mesh')
    .description('Restores the disks of a computer lab from each other.')
    .version(VERSION)
    .showHelpAfterError('(run with --help for help)')
    .exitOverride()
  const modules = await Promise.all([
    import('./commands/seed.ts'),
    import('./commands/invite.ts'),
    import('./commands/join.ts'),
    import('./commands/remove.ts'),
    import('./commands/restore.ts'),
    import('./commands/up.ts'),
    import('./commands/verify.ts'),
    import('./commands/status.ts'),
    import('./commands/peers.ts'),
  ])
  for (const { command } of modules) {
    // What a program reads with --json stays JSON, whatever was wrong with the call.
    program.addCommand(command().exitOverride().copyInheritedSettings(program))
  }
  try {
    await program.parseAsync(args, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    const asked =
      error.code === 'commander.helpDisplayed' || error.code === 'commander.version' || error.code === 'commander.help'
    if (asked && error.exitCode === 0) return
    process.exitCode = EXIT.usage
    if (args.includes('--json')) {
      new Output({ json: true, quiet: true }).error(new MeshError('USAGE', error.message.replace(/^error: /, '')))
    }
  }
}
