import { Command } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'

interface Options {
  disk: string
  name?: string
  image?: string
  force: boolean
}

export function command(): Command {
  return withCommonOptions(new Command('join'))
    .description('make this machine a member of the site that a token names')
    .argument('<token>', 'as `mesh invite` printed it on the master')
    .requiredOption('--disk <disk>', 'block device or file that is to be restored')
    .option('--name <name>', 'name of this machine (default: its host name)')
    .option('--image <name>', 'image it is to have, if the site has several')
    .option('--force', 'accept a disk that is mounted read-write', false)
    .addHelpText('after', '\nExample:\n  mesh join mesh-… --disk /dev/sda3 --name pc07')
    .action(action(run))
}

async function run(context: Context, options: Options, token: string): Promise<void> {
  const { join } = await import('../../node/agent/join.ts')
  const joined = await join({ ...context.agent, ...options, token })
  const next = 'Next: `mesh restore` brings the disk to the image, `mesh up` serves it to the others.'
  context.output.result(
    joined,
    `Joined site ${joined.site} as ${joined.name}; image ${joined.image}, release ${joined.release}.\n${next}`,
  )
}
