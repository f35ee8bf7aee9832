/**
 * The folder tools/crash cuts machines off at random moments and judges what is left: `npm run crash`.
 * - `campaign` spreads runs over processes (`crash-worker`); `crash-run` makes one run from the seed and its number.
 * - `power-cut-run` drives a `simulated-machine`, whose disks (`power-cut-device`) forget what was not flushed; `kill-run`
 *   drives real processes (`kill-victim`) that kill themselves.
 * - `model` is the image and its releases, `session` what a user writes, `restore-once` one restore.
 * - `judge` compares disk and log. `wrong-orders` breaks rules on purpose, to see that the campaign notices.
 */

import { randomInt } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { formatTable } from '../cli/format.ts'
import { type CampaignResult, campaign } from './campaign.ts'
import { WRONG_ORDERS, type WrongOrder } from './wrong-orders.ts'

const HELP = `npm run crash -- [--runs N] [--seed S] [--run K] [--wrong ORDER] [--jobs J] [--json]

Kills monitors and restores at random moments, by SIGKILL and by simulated power cuts that drop or tear what
was not flushed, and compares what is left of the disk with what its write log says.

  --runs N       how many runs (default 1000)
  --seed S       the same seed gives the same runs (default: a random one, printed); where exactly a SIGKILL
                 hits is the kernel's choice
  --run K        only run K of that seed
  --wrong ORDER  break a rule on purpose, to see that the campaign notices; one of:
                 ${Object.keys(WRONG_ORDERS).join(', ')}
  --jobs J       processes at a time (default: one per core)
  --json         print the result as one line of JSON
`
/** Runs that fail before the campaign gives up. */
const MOST_FAILURES = 10
const FAULTS_SHOWN = 3
const PROGRESS_MS = 10_000

/** The flags as given, checked. Errors: USAGE. */
function readFlags() {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '1000' },
      seed: { type: 'string', default: String(randomInt(2 ** 31)) },
      run: { type: 'string' },
      wrong: { type: 'string' },
      jobs: { type: 'string', default: String(availableParallelism()) },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const order = values.wrong as WrongOrder | undefined
  if (order !== undefined && !Object.hasOwn(WRONG_ORDERS, order))
    throw new MeshError('USAGE', `there is no wrong order ${order}; see npm run crash -- --help`)
  const { json, help } = values
  const runs =
    values.run === undefined
      ? Array.from({ length: natural('--runs', values.runs) }, (_, i) => i)
      : [natural('--run', values.run)]
  const jobs = Math.max(1, natural('--jobs', values.jobs))
  return { json, help, order, runs, jobs, seed: natural('--seed', values.seed) }
}

async function main(): Promise<void> {
  const { json, help, order, runs, jobs, seed } = readFlags()
  if (help) return void process.stdout.write(HELP)
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
  const begun = performance.now()
  const seconds = (): number => Math.round((performance.now() - begun) / 100) / 10
  say(`crash campaign: ${runs.length} runs, seed ${seed}`)
  let told = begun
  const result = await campaign({
    seed,
    runs,
    order,
    jobs,
    mostFailures: MOST_FAILURES,
    signal: stop.signal,
    progress: (now) => {
      if (performance.now() - told < PROGRESS_MS) return
      told = performance.now()
      say(`${now.runs} of ${runs.length} runs, ${now.failed.length} failed, ${seconds()} s`)
    },
  })
  sayFailures(result, seed, order)
  if (json) process.stdout.write(`${JSON.stringify(asJson(result, seed, seconds()))}\n`)
  else process.stdout.write(summary(result, seed, seconds()))
  if (result.failed.length > 0) process.exitCode = 1
  else if (stop.signal.aborted) process.exitCode = 130
}

/** Each failed run with the command that repeats it. */
function sayFailures({ failed }: CampaignResult, seed: number, order: WrongOrder | undefined): void {
  const wrong = order === undefined ? '' : ` --wrong ${order}`
  for (const { run, faults } of failed) {
    say(`run ${run} failed; repeat with: npm run crash -- --seed ${seed} --run ${run}${wrong}`)
    for (const fault of faults.slice(0, FAULTS_SHOWN)) say(`  ${fault}`)
  }
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

function natural(option: string, text: string): number {
  if (!/^\d{1,12}$/.test(text)) throw new MeshError('USAGE', `${option} ${text} is no whole number`)
  return Number(text)
}

function summary(result: CampaignResult, seed: number, seconds: number): string {
  const most = (counts: ReadonlyMap<string, number>): string[][] =>
    [...counts].sort((a, b) => a[0].localeCompare(b[0])).map(([what, count]) => [what, String(count)])
  const tables = [
    [['runs', ''], ...most(result.kinds)],
    [['cut off while doing this', 'times'], ...most(result.cuts)],
    [['the log said afterwards', 'times'], ...most(result.states)],
  ].map((rows) => `${formatTable(rows)}\n\n`)
  const { failed, runs } = result
  return `${tables.join('')}seed ${seed}, ${seconds} s\n${runs - failed.length} passed, ${failed.length} failed\n`
}

function asJson(result: CampaignResult, seed: number, seconds: number): object {
  const { runs, kinds, cuts, states, failed } = result
  const counts = {
    kinds: Object.fromEntries(kinds),
    cuts: Object.fromEntries(cuts),
    states: Object.fromEntries(states),
  }
  return { event: 'crash', seed, seconds, runs, passed: runs - failed.length, failed, ...counts }
}

try {
  await main()
} catch (error) {
  process.stderr.write(`crash: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = isMeshError(error) ? error.exitCode : 1
}
