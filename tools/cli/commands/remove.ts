import { Command } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'

/** `mesh remove`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('remove'))
    .description('take a machine out of the site; `mesh seed` or `mesh up` must be running here, on the master')
    .argument('<name>', 'name of the machine, as `mesh peers` lists it')
    .addHelpText('after', '\nExample:\n  mesh remove pc07')
    .action(action(run))
}

async function run(context: Context, _options: object, name: string): Promise<void> {
  const { removeMember } = await import('../../../node/agent/run/ask-running.ts')
  const removed = await removeMember(context.stateDir, name)
  context.output.result(removed, `${removed.name} is no member any more; its disk is as it was.`)
}
