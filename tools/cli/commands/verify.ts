import { Command } from 'commander'
import { EXIT } from '../../../protocol/errors.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { formatSeconds } from '../format.ts'
import { parseCount, parseImage } from '../parse.ts'

/** `mesh verify`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('verify'))
    .description('compare the whole disk with the release; changes nothing')
    .option('--image <name>', 'another image than this machine’s', parseImage)
    .option('--release <n>', 'an older release', parseCount)
    .addHelpText('after', '\nExit code 0 if the disk equals the image, 8 if it does not.\n\nExample:\n  mesh verify')
    .action(action(run))
}

async function run(context: Context, options: { image?: string; release?: number }): Promise<void> {
  const { verifyMachine } = await import('../../../node/agent/restore/verify-machine.ts')
  const report = await verifyMachine({ ...context.agent, ...options })
  const { total, different } = report.blocks
  const of = `${report.image} release ${report.release}`
  if (report.verified) {
    context.output.result(report, `Verified: all ${total} blocks equal ${of} (${formatSeconds(report.seconds)})`)
    return
  }
  const first = report.ranges
    .slice(0, 8)
    .map(([start, end]) => (end === start + 1 ? String(start) : `${start}-${end - 1}`))
    .join(', ')
  context.output.result(
    report,
    `${different} of ${total} blocks differ from ${of}: ${first}${report.ranges.length > 8 ? ', …' : ''}`,
  )
  process.exitCode = EXIT.mismatch
}
