import { Command } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'
import { parseImage, parseMachine } from '../parse.ts'

interface Options {
  disk?: string
  name?: string
  image?: string
  force: boolean
  newIdentity: boolean
}

/** `mesh join`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('join'))
    .description('make this machine a member of the site that a token names')
    .argument('<token>', 'as `mesh invite` printed it on the master')
    .option(
      '--disk <disk>',
      'block device or file that is to be restored (default: the one it has); an operator’s machine needs none',
    )
    .option('--name <name>', 'name of this machine (default: its host name)', parseMachine)
    .option('--image <name>', 'image it is to have, if the site has several', parseImage)
    .option('--new-identity', 'join with a new key: the old one was removed from the site, or copied', false)
    .option('--force', 'accept a disk that is in use', false)
    .addHelpText('after', '\nExample:\n  mesh join mesh-… --disk /dev/sda3 --name pc07')
    .action(action(run))
}

async function run(context: Context, options: Options, token: string): Promise<void> {
  const { join } = await import('../../../node/agent/mesh/join.ts')
  const joined = await join({ ...context.agent, ...options, token })
  const { site, name, role, image, release } = joined
  const what = image === undefined ? 'it manages no disk' : `image ${image}, release ${release}`
  const as = role === 'operator' ? `${name}, an operator` : name
  const next =
    image === undefined
      ? 'Next: `mesh up` keeps it in touch with the others.'
      : 'Next: `mesh restore` brings the disk to the image, `mesh up` serves it to the others.'
  context.output.result(joined, `Joined site ${site} as ${as}; ${what}.\n${next}`)
}
