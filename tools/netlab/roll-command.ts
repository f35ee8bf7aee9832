import type { Command } from 'commander'
import { formatSeconds, formatTable } from '../cli/format.ts'
import { parseCount, parseSize } from '../cli/parse.ts'
import { type RollLabResult, runRollLab } from './roll.ts'

interface Flags {
  machines: number
  size: number
  wave: number
  holders: number
  timeout: number
  seed: number
  build: boolean
  json: boolean
}

interface Parts {
  readonly parseMachines: (text: string) => number
  readonly parseSeed: (text: string) => number
  readonly whileRunning: (work: (signal: AbortSignal, say: (line: string) => void) => Promise<string>) => Promise<void>
}

const SIZE = 16 * 1024 ** 2
/** Part of each disk that a session has dirtied before the restore. */
const SHARE = 0.02
/** Least number of machines: one never comes back, one is in use, and two stay up. */
const LEAST_MACHINES = 4

/** `npm run lab -- roll`. */
export function addRollCommand(lab: Command, { parseMachines, parseSeed, whileRunning }: Parts): void {
  lab
    .command('roll')
    .description(
      'machines that an operator resets in waves; one never comes back, one is in use, the operator is killed',
    )
    .option('--machines <n>', `how many of them, from ${LEAST_MACHINES}`, parseMachines, 24)
    .option('--size <bytes>', 'size of the image', parseSize, SIZE)
    .option('--wave <n>', 'machines down at a time', parseCount, 6)
    .option('--holders <n>', 'running machines that every block stays on', parseCount, 2)
    .option('--timeout <seconds>', 'for a machine, until its receipt is there', parseCount, 120)
    .option('--seed <n>', 'the same seed gives the same image and sessions', parseSeed, 1)
    .option('--no-build', 'run the sources instead of the bundle')
    .option('--json', 'print the result as one line of JSON', false)
    .action(async ({ machines, size, wave, holders, timeout, seed, build, json }: Flags) =>
      whileRunning(async (signal, say) => {
        const count = Math.max(machines, LEAST_MACHINES)
        const options = {
          machines: count,
          size,
          wave,
          holders,
          timeoutSeconds: timeout,
          seed,
          build,
          share: SHARE,
          mdns: false,
        }
        const result = await runRollLab(options, signal, say)
        return json ? JSON.stringify(result) : asText(result)
      }),
    )
}

function asText({ options, steps, leastHolders, mostDown, seconds, report }: RollLabResult): string {
  const { machines, wave, holders, seed } = options
  const rows = report.rows.map(({ machine, turn, blocks, seconds: took, from = [], why }) => [
    machine,
    turn,
    blocks === undefined ? '' : String(blocks),
    took === undefined ? '' : formatSeconds(took),
    from.map(({ name, blocks: sent }) => `${name} ${sent}`).join(', '),
    why,
  ])
  return `${machines} machines, waves of ${wave}, ${holders} holders, seed ${seed}: ${formatSeconds(seconds)}
least holders ${leastHolders} at ${steps} steps, most down ${mostDown}; ${report.verified} verified, ${report.failed} failed, ${report.skipped} skipped

${formatTable([['machine', 'state', 'blocks', 'restore', 'from', 'why'], ...rows])}`
}
