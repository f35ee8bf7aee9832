import { Command } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'
import { type ResetFlags, resetOf, withResetOptions } from '../reset-options.ts'
import { type ServingFlags, servingOf, withServingOptions } from '../serving-options.ts'

export function command(): Command {
  return withResetOptions(withServingOptions(withCommonOptions(new Command('up'))))
    .description('serve this machine’s image to the others until stopped')
    .addHelpText('after', '\nExamples:\n  mesh up\n  mesh up --max-upload 50Mbit --max-cpu 25%')
    .action(action(run))
}

async function run(context: Context, flags: ServingFlags & ResetFlags): Promise<void> {
  const { up } = await import('../../node/agent/up.ts')
  await up({ ...context.agent, serving: servingOf(flags), reset: resetOf(flags) })
  context.output.result({ event: 'stopped' }, 'Stopped.')
}
