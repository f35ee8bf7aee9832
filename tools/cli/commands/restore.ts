import { Command, Option } from 'commander'
import type { HooksReport } from '../../../node/agent/machine/hooks.ts'
import { LINGER_MS } from '../../../node/agent/offer/limits.ts'
import type { RestoreResult } from '../../../node/restore/restore-result.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { describeOffenders } from '../describe-offenders.ts'
import { formatBytes, formatSeconds, formatTable } from '../format.ts'
import { type HookFlags, hooksOf, withHookOptions } from '../hook-options.ts'
import { parseCount, parseDuration, parseImage } from '../parse.ts'
import { type ServingFlags, servingOf, withServingOptions } from '../serving-options.ts'

interface Options extends ServingFlags, HookFlags {
  image?: string
  release?: number
  force: boolean
  beside: string[]
  disk?: string
  acceptNewDisk: boolean
  wait?: number
  linger?: number
}

const DEFAULT_LINGER = `${LINGER_MS / 1000}s`

/** `mesh restore`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withHookOptions(withServingOptions(withCommonOptions(new Command('restore'))))
    .description('bring this machine’s disk back to the newest release')
    .option('--image <name>', 'another image than this machine’s', parseImage)
    .option('--release <n>', 'an older release', parseCount)
    .option('--wait <time>', 'how long to wait for machines that have what is missing (default: 20s)', parseDuration)
    .addOption(
      new Option('--linger [time]', 'afterwards serve the others until they are done, at most so long (default: 60s)')
        .preset(DEFAULT_LINGER)
        .argParser(parseDuration),
    )
    .option(
      '--beside <state dir>',
      'of another managed disk of this computer, from which common content is copied (repeatable; remembered)',
      (value: string, before: string[]) => [...before, value],
      [],
    )
    .option('--disk <path>', 'another path of this machine’s disk (remembered)')
    .option('--accept-new-disk', 'the disk was replaced: overwrite the one at its path, and know it from now on', false)
    .option('--force', 'write to the disk although it is mounted or in use', false)
    .addHelpText(
      'after',
      '\nExit code 0 only if the whole disk equals the signed image.\n\nExamples:\n  mesh restore\n  mesh restore --linger 2m',
    )
    .action(action(run))
}

async function run(context: Context, options: Options): Promise<void> {
  const { restoreMachine } = await import('../../../node/agent/restore/restore-machine.ts')
  const { assertHooksDone } = await import('../../../node/agent/machine/hooks.ts')
  const { output, agent } = context
  const lingers = options.linger !== undefined
  const { hooks: _directory, ...others } = options
  let done: HooksReport | undefined
  const receipt = await restoreMachine({
    ...agent,
    ...others,
    ...hooksOf(options),
    hooked: (report) => {
      done = report
    },
    serving: servingOf(options),
    ...(options.wait === undefined ? {} : { waitMs: options.wait }),
    ...(options.linger === undefined ? {} : { lingerMs: options.linger }),
    report: (event) => {
      agent.report(event)
      // A restore that lingers prints its result before it serves others.
      if (lingers && event.type === 'receipt') output.result(event.receipt, describe(event.receipt))
    },
  })
  // Programs take the last line as the result, so it is printed again.
  if (output.json || !lingers) output.result(receipt, describe(receipt))
  assertHooksDone(done)
}

function describe(receipt: RestoreResult): string {
  const { blocks, bytes } = receipt
  const lines = [
    `Verified: ${receipt.image} release ${receipt.release}, ${blocks.total} blocks in ${formatSeconds(receipt.seconds)}`,
    blocks.dirty === 0
      ? 'nothing to restore'
      : `${blocks.dirty} blocks restored: ${blocks.staged} staged, ${blocks.fetched} fetched (${formatBytes(bytes.received)}), ${blocks.local + blocks.copied} copied, ${blocks.zero} zero`,
  ]
  if (receipt.beyondImage > 0)
    lines.push(`the ${formatBytes(receipt.beyondImage)} behind the image are left as they are`)
  if (receipt.peers.length > 0) {
    const rows = receipt.peers.map((peer) => [
      peer.name,
      String(peer.blocks),
      formatBytes(peer.bytes),
      String(peer.bad),
    ])
    lines.push(formatTable([['from', 'blocks', 'received', 'wrong'], ...rows]))
  }
  if (receipt.offenders.length > 0) lines.push(`time was lost: ${describeOffenders(receipt.offenders)}`)
  return lines.join('\n')
}
