import { Command } from 'commander'
import type { ReleaseStatus } from '../../../node/agent/release/releases.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { formatBytes, formatTable } from '../format.ts'
import { parseImage } from '../parse.ts'

/** `mesh releases`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('releases'))
    .description('list the releases of an image, and what each changed')
    .option('--image <name>', 'another image than this machine’s', parseImage)
    .addHelpText('after', '\nExample:\n  mesh releases --image win11')
    .action(action(run))
}

async function run(context: Context, options: { image?: string }): Promise<void> {
  const { releases } = await import('../../../node/agent/release/releases.ts')
  const result = await releases(context.stateDir, options.image)
  const heading = ['release', 'published', 'size', 'changed', 'new content', 'here', 'label']
  context.output.result(result, `${result.image}\n${formatTable([heading, ...result.releases.map(row)])}`)
}

function row(release: ReleaseStatus, at: number): string[] {
  const { difference } = release
  // The hash tree of one of the two releases is not on this machine.
  const unknown = at === 0 ? '' : 'unknown'
  return [
    String(release.release),
    formatTime(release.time),
    formatBytes(release.size),
    difference === null ? unknown : `${difference.blocks} blocks, ${formatBytes(difference.bytes)}`,
    difference === null ? unknown : formatBytes(difference.newBytes),
    here(release),
    release.label,
  ]
}

function here({ onDisk, staged }: ReleaseStatus): string {
  if (onDisk) return 'on the disk'
  return staged === undefined ? '' : `${staged.staged} of ${staged.wanted} blocks staged`
}
