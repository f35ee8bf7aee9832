import { Command } from 'commander'
import { MeshError } from '../../../protocol/errors.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { formatBytes, formatSeconds } from '../format.ts'
import { type KeyFlags, lentBy, withKeyOptions } from '../key-options.ts'
import { parseImage, parseMachine, parsePlace, parseRange, parseSize } from '../parse.ts'
import { type ResetFlags, resetOf, withResetOptions } from '../reset-options.ts'
import { type ServingFlags, servingOf, withServingOptions } from '../serving-options.ts'

interface Options extends ServingFlags, ResetFlags, KeyFlags {
  image?: string
  blockSize?: number
  preserve: { offset: number; length: number }[]
  copy: boolean
  once: boolean
  force: boolean
  acceptNewDisk: boolean
  dryRun: boolean
  label?: string
  site?: string
  name?: string
}

/** `mesh seed`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withKeyOptions(withResetOptions(withServingOptions(withCommonOptions(new Command('seed')))))
    .description('publish the content of a disk as the next release, then serve it')
    .argument('[disk]', 'block device or image file (default: that of the configuration file)')
    .option(
      '--image <name>',
      'name of the image (default: that of this disk, or of last time, or the file name)',
      parseImage,
    )
    .option('--block-size <bytes>', 'unit of content addressing, a power of two (default: 64K)', parseSize)
    .option(
      '--preserve <offset:length>',
      'bytes that are never hashed, served or restored (repeatable)',
      parseRange,
      [],
    )
    .option('--copy', 'serve an own copy, so that the disk can go on being changed', false)
    .option('--once', 'publish and stop, instead of serving on', false)
    .option('--dry-run', 'say what the release would change, and publish nothing', false)
    .option('--force', 'publish although the disk is in use or changes, or the release may be a mistake', false)
    .option('--accept-new-disk', 'publish it although another disk had this path before', false)
    .option('--label <text>', 'remark for people')
    .option('--site <name>', 'name of the site, at the first time (default: lab)', parsePlace)
    .option('--name <name>', 'name of this machine, at the first time (default: master)', parseMachine)
    .addHelpText('after', '\nExamples:\n  mesh seed /dev/sda3 --image win11\n  mesh seed model.img --once')
    .action(action(run))
}

async function run(context: Context, options: Options, given?: string): Promise<void> {
  const disk = given ?? context.config.disk
  if (disk === undefined) throw new MeshError('USAGE', "missing required argument 'disk'")
  const { output, agent } = context
  if (options.dryRun) return preview(context, { ...options, disk })
  const { seed } = await import('../../../node/agent/run/seed.ts')
  const published = await seed({
    ...agent,
    ...options,
    lent: await lentBy(context, options),
    serving: servingOf(options),
    reset: resetOf(options),
    disk,
    report: (event) => {
      agent.report(event)
      if (event.type !== 'published') return
      const { image, release, root, size, blockSize, seconds, unchanged } = event.published
      const what = unchanged ? 'Unchanged, nothing new to publish' : 'Published'
      const facts = `${formatBytes(size)} in blocks of ${formatBytes(blockSize)}, ${formatSeconds(seconds)}`
      output.result(event.published, `${what}: ${image} release ${release} (${facts})\nroot ${root}`)
    },
  })
  // Others have joined and left since, and programs take the last line as the result.
  if (output.json && !options.once) output.result(published, '')
}

/** `--dry-run`: what would be published is told, in the words of a publication. */
async function preview({ output, agent, stateDir }: Context, options: Options & { disk: string }): Promise<void> {
  const { previewRelease } = await import('../../../node/agent/release/preview-release.ts')
  const preview = await previewRelease(stateDir, options, agent)
  const { image, release, root, unchanged } = preview
  const what = unchanged ? 'Unchanged, nothing new to publish' : 'Would publish'
  output.result(preview, `${what}: ${image} release ${release}\nroot ${root}`)
}
