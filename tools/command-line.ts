import { Command, CommanderError } from 'commander'
import { EXIT, MeshError } from '../protocol/errors.ts'
import { Output } from './output.ts'
import { VERSION } from './version.ts'

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
