import { Command, Option } from 'commander'
import type { LabOptions, LabReport } from '../../../node/agent/operate/look-at-lab.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { describeLab, pluginLine } from '../lab-text.ts'
import { LAB_EVERY_MS } from '../limits.ts'
import { parseDuration, parsePlace } from '../parse.ts'

interface Options {
  group?: string
  trouble: boolean
  away: number
  wide: boolean
  watch: boolean
  check: boolean
}

/** What programs of a monitoring system end with; 3: nothing is known. */
const PLUGIN_EXIT = { ok: 0, warning: 1, critical: 2 } as const
const PLUGIN_UNKNOWN = 3

/** `mesh lab`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('lab'))
    .description('show all machines of the site: which are on, right, and ready; those in trouble first')
    .option('--group <name>', 'only the machines of one group', parsePlace)
    .option('--trouble', 'only machines that are not right', false)
    .addOption(
      new Option('--away <duration>', 'a machine that is off for longer is in trouble')
        .argParser(parseDuration)
        .default(14 * 24 * 3_600_000, '14d'),
    )
    .option('--wide', 'also addresses, versions, write logs, disks, and who sent the blocks', false)
    .option('--watch', 'show it again every few seconds, until stopped', false)
    .option('--check', 'one line and the exit code of a plugin of Nagios or Checkmk: 0, 1, 2 or 3', false)
    .addHelpText('after', '\nExamples:\n  mesh lab\n  mesh lab --group room12 --watch\n  mesh lab --check')
    .action(action(run))
}

async function run(context: Context, { away, wide, watch, check, ...which }: Options): Promise<void> {
  const { lookAtLab, watchLab } = await import('../../../node/agent/operate/look-at-lab.ts')
  const options: LabOptions = { ...context.agent, ...which, awayMs: away }
  if (check) return checkLab(() => lookAtLab(options))
  const show = (report: LabReport): void =>
    context.output.result(report, describeLab(report, { wide, now: Date.now() }))
  if (!watch) return show(await lookAtLab(options))
  const isTerminal = process.stdout.isTTY === true && !context.output.json
  await watchLab({ ...options, everyMs: LAB_EVERY_MS }, (report) => {
    // Home, then clear what is below, so that nothing flickers.
    if (isTerminal) process.stdout.write('\u001b[H\u001b[J')
    show(report)
  })
}

/** Whatever happens, a plugin prints one line. */
async function checkLab(look: () => Promise<LabReport>): Promise<void> {
  try {
    const report = await look()
    process.stdout.write(`${pluginLine(report)}\n`)
    process.exitCode = PLUGIN_EXIT[report.level]
  } catch (error) {
    if (!isMeshError(error)) throw error
    process.stdout.write(`MESH UNKNOWN - ${error.message}\n`)
    process.exitCode = PLUGIN_UNKNOWN
  }
}
