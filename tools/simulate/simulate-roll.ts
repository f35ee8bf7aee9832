import { formatSeconds, formatTable } from '../cli/format.ts'
import { type RollScenarioOptions, type RollScenarioResult, runRollScenario } from './roll-scenario.ts'

/** What `--help` says about the scenario `roll`. */
export const ROLL_HELP = `The scenario roll is another one: each site resets its machines, with the real choice of waves and the real steps of
a roll. Machines take their time, fail, are in use, are off, and go off by themselves.

  --machines N     of all sites (default 1000)
  --sites N        each with a roll of its own (default 20)
  --wave N         machines down at a time in a site at most (default 60: only the holders bind)
  --holders N      running machines that every block stays on (default 2)

Exits with 1 if a reset leaves a block on fewer machines than that, or a roll does not end.
`

/** Runs and prints `npm run simulate -- --scenario roll`. Returns whether all went as it must. */
export function simulateRoll(options: RollScenarioOptions, json: boolean): boolean {
  const result = runRollScenario(options)
  process.stdout.write(
    json ? `${JSON.stringify({ event: 'simulate', scenario: 'roll', ...result })}\n` : asText(result),
  )
  return result.broken === 0 && result.unfinished === 0
}

function asText(result: RollScenarioResult): string {
  const { machines, sites, blocks, wave, holders, seed, ends } = result
  return `${machines} machines in ${sites} sites, ${blocks} blocks, waves of ${wave}, ${holders} holders, seed ${seed}

${formatTable([
  ['rounds', 'resets', 'most down', 'least holders', 'broken', 'verified', 'failed', 'skipped', 'time', 'unfinished'],
  [
    ...[result.rounds, result.resets, result.mostDown, result.leastHolders, result.broken],
    ...[ends.verified, ends.failed, ends.skipped],
  ]
    .map(String)
    .concat(formatSeconds(result.seconds), String(result.unfinished)),
])}
`
}
