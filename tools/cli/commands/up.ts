import { Command } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'
import { type ResetFlags, resetOf, withResetOptions } from '../reset-options.ts'
import { type ServingFlags, servingOf, withServingOptions } from '../serving-options.ts'
import { type StagingFlags, stagingOf, withStagingOptions } from '../staging-options.ts'

/** `mesh up`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withStagingOptions(withResetOptions(withServingOptions(withCommonOptions(new Command('up')))))
    .description('serve this machine’s image to the others, and fetch a newer release ahead, until stopped')
    .addHelpText('after', '\nExamples:\n  mesh up\n  mesh up --max-upload 50Mbit --max-cpu 25%')
    .action(action(run))
}

async function run(context: Context, flags: ServingFlags & StagingFlags & ResetFlags): Promise<void> {
  const { up } = await import('../../../node/agent/run/up.ts')
  const serving = { ...servingOf(flags), ...stagingOf(flags) }
  await up({ ...context.agent, serving, reset: resetOf(flags) })
  context.output.result({ event: 'stopped' }, 'Stopped.')
}
