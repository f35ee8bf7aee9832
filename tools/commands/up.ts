import { Command } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'

export function command(): Command {
  return withCommonOptions(new Command('up'))
    .description('serve this machine’s image to the others until stopped')
    .addHelpText('after', '\nExample:\n  mesh up')
    .action(action(run))
}

async function run(context: Context): Promise<void> {
  const { up } = await import('../../node/agent/up.ts')
  await up(context.agent)
  context.output.result({ event: 'stopped' }, 'Stopped.')
}
