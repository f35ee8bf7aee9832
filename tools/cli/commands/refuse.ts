import { Command } from 'commander'
import { MeshError } from '../../../protocol/errors.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { parseCode } from '../parse.ts'

/** `mesh refuse`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('refuse'))
    .description(
      'turn a machine away that asks to be enrolled; `mesh seed` or `mesh up` must be running here, on the master',
    )
    .argument('[name]', 'name of a machine that waits, as `mesh machines` lists it')
    .option('--code <code>', 'the machine that shows this code', parseCode)
    .addHelpText('after', '\nExample:\n  mesh refuse --code K7QM3-XPAH2')
    .action(action(run))
}

async function run(context: Context, { code }: { code?: string }, name: string | undefined): Promise<void> {
  if ((name === undefined) === (code === undefined)) throw new MeshError('USAGE', 'give either NAME or --code')
  const { refuse } = await import('../../../node/agent/run/ask-running.ts')
  const refused = await refuse(context.stateDir, { name, code })
  const who = refused.machines.map((one) => `${one.name}, code ${one.code}`).join('; ')
  context.output.result(refused, `Refused: ${who}. \`mesh approve --code\` takes that back.`)
}
