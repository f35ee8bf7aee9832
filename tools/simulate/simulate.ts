/**
 * The folder tools/simulate is a lab in one process with simulated time and links: `npm run simulate`.
 * - `scenarios` says what machines there are; `run-scenario` runs one and compares it with the best that is possible.
 * - `simulated-lab` has the time (`event-queue`); `simulated-machine` has the real picker of node/exchange.
 * - `roll-scenario` is a night of rolls over many `simulated-room`s, with the real decisions of node/roll.
 */

import { parseArgs } from 'node:util'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { formatTable } from '../cli/format.ts'
import { runScenario, type ScenarioResult } from './run-scenario.ts'
import { SCENARIOS, type ScenarioName } from './scenarios.ts'
import { ROLL_HELP, simulateRoll } from './simulate-roll.ts'

const HELP = `npm run simulate -- [--machines N] [--scenario NAME] [--sites N] [--blocks N] [--offer-ms N] [--seed S] [--json]

A lab in one process: the real picker on each machine, simulated links of 100 Mbit/s, simulated time.
Prints how long the last and the median machine took (times what each needs at best), what the sources sent
(times the image), what crossed the sites' uplinks of 20 Mbit/s (times the image once for each), and which part of what came was of no use.

  --machines N     without the sources (default 60)
  --scenario NAME  one of them (default: all):
${Object.entries(SCENARIOS)
  .map(([name, { what, optimum }]) => `      ${name.padEnd(12)} ${what};\n${' '.repeat(19)}at best: ${optimum}\n`)
  .join('')}  --sites N        where there are uplinks (default: one for each 20 machines)
  --blocks N       of 64 KiB (default 2000)
  --offer-ms N     from the receipt of a block until others are told (default 100)
  --seed S         the same seed gives the same result (default 1)
  --json           print one line of JSON for each scenario

Exits with 1 if some machine does not get everything.

${ROLL_HELP}`

function readFlags() {
  const { values } = parseArgs({
    options: {
      machines: { type: 'string' },
      scenario: { type: 'string' },
      blocks: { type: 'string', default: '2000' },
      'offer-ms': { type: 'string', default: '100' },
      seed: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
      sites: { type: 'string' },
      wave: { type: 'string', default: '60' },
      holders: { type: 'string', default: '2' },
      help: { type: 'boolean', default: false },
    },
  })
  return values
}

type Flags = ReturnType<typeof readFlags>

function main(): void {
  const flags = readFlags()
  const { scenario } = flags
  if (flags.help) return void process.stdout.write(HELP)
  if (scenario !== 'roll' && scenario !== undefined && !Object.hasOwn(SCENARIOS, scenario))
    throw new MeshError('USAGE', `there is no scenario ${scenario}; see npm run simulate -- --help`)
  const names = (scenario === undefined ? Object.keys(SCENARIOS) : [scenario]) as ScenarioName[]
  const right = scenario === 'roll' ? runRoll(flags) : runScenarios(names, flags)
  if (!right) process.exitCode = 1
}

/** Whether the roll ended as it must. Errors: USAGE. */
function runRoll(flags: Flags): boolean {
  const options = {
    machines: natural('--machines', flags.machines ?? '1000', 1),
    sites: natural('--sites', flags.sites ?? '20', 1),
    blocks: natural('--blocks', flags.blocks, 1),
    wave: natural('--wave', flags.wave, 1),
    holders: natural('--holders', flags.holders, 0),
    seed: natural('--seed', flags.seed, 0),
  }
  return simulateRoll(options, flags.json)
}

/** Whether every machine of every scenario got everything. Errors: USAGE. */
function runScenarios(names: readonly ScenarioName[], flags: Flags): boolean {
  const facts = {
    machines: natural('--machines', flags.machines ?? '60', 1),
    sites: flags.sites === undefined ? undefined : natural('--sites', flags.sites, 1),
    blocks: natural('--blocks', flags.blocks, 1),
    offerMs: natural('--offer-ms', flags['offer-ms'], 0),
    seed: natural('--seed', flags.seed, 0),
  }
  const results = names.map((name) => {
    const result = runScenario({ scenario: name, ...facts })
    if (flags.json) process.stdout.write(`${JSON.stringify({ event: 'simulate', ...result })}\n`)
    return result
  })
  const { machines, blocks, offerMs, seed } = facts
  if (!flags.json)
    process.stdout.write(
      `${machines} machines, ${blocks} blocks, offered after ${offerMs} ms, seed ${seed}\n\n${table(results)}\n`,
    )
  return results.every(({ unfinished }) => unfinished.length === 0)
}

function table(results: readonly ScenarioResult[]): string {
  return formatTable([
    ['', 'last ÷ best', 'median ÷ best', 'sources ÷ image', 'uplink ÷ image', 'useless', 'unfinished'],
    ...results.map(({ scenario, last, median, source, uplink, useless, unfinished }) => [
      scenario,
      last.toFixed(3),
      median.toFixed(3),
      source.toFixed(3),
      uplink?.toFixed(3) ?? '',
      `${(useless * 100).toFixed(2)} %`,
      unfinished.length === 0 ? '' : unfinished.join(' '),
    ]),
  ])
}

function natural(option: string, text: string, least: number): number {
  if (!/^\d{1,7}$/.test(text) || Number(text) < least)
    throw new MeshError('USAGE', `${option} ${text} is no whole number from ${least} to 9999999`)
  return Number(text)
}

try {
  main()
} catch (error) {
  process.stderr.write(`simulate: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = isMeshError(error) ? error.exitCode : 1
}
