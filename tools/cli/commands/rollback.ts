import { Command } from 'commander'
import { describeChange } from '../change-text.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { type KeyFlags, lentBy, withKeyOptions } from '../key-options.ts'
import { parseCount, parseImage } from '../parse.ts'

interface Options extends KeyFlags {
  image?: string
  label?: string
  force: boolean
  dryRun: boolean
}

/** `mesh rollback`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withKeyOptions(withCommonOptions(new Command('rollback')))
    .description(
      'publish the content of an earlier release as the next one; `mesh seed` or `mesh up` must be running here, on the master',
    )
    .argument('<release>', 'number of the earlier release, as `mesh releases` lists it', parseCount)
    .option('--image <name>', 'another image than this machine’s', parseImage)
    .option('--label <text>', 'remark for people (default: which release it is)')
    .option('--dry-run', 'say what the release would change, and publish nothing', false)
    .option(
      '--force',
      'publish it although some of its blocks are on no reachable machine, or it may be a mistake',
      false,
    )
    .addHelpText('after', '\nExample:\n  mesh rollback 12')
    .action(action(run))
}

async function run(context: Context, options: Options, release: number): Promise<void> {
  const { rollback } = await import('../../../node/agent/release/rollback.ts')
  const { image, label, force, dryRun } = options
  const result = await rollback(context.stateDir, {
    release,
    force,
    dryRun,
    lent: await lentBy(context, options),
    ...(image === undefined ? {} : { image }),
    ...(label === undefined ? {} : { label }),
  })
  const { total, notHere, nowhere } = result.blocks
  const done = result.event === 'rolled-back' ? 'Published' : 'Would publish'
  const lines = [
    ...result.warnings.map((text) => `warning: ${text}`),
    describeChange(result.change),
    `${done}: ${result.image} release ${result.release} with the content of release ${result.content}`,
  ]
  if (notHere > 0) lines.push(`${notHere} of ${total} blocks are not on the disk of this master, but on other machines`)
  if (nowhere > 0) lines.push(`${nowhere} blocks are on no machine that can be reached now`)
  if (result.event === 'rolled-back')
    lines.push('`mesh restore` brings the disk of this master there, too; `mesh seed` would publish what it holds now.')
  context.output.result(result, lines.join('\n'))
}
