import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type CampaignResult, campaign } from '../../tools/crash/campaign.ts'
import { CrashRuns } from '../../tools/crash/crash-run.ts'
import { WRONG_ORDERS, type WrongOrder } from '../../tools/crash/wrong-orders.ts'
import { testSeed } from '../support/seed.ts'
import { useTempDir } from '../support/temp-dir.ts'

const RUNS = 300
/** They take half a minute; a machine that has other work to do is given time. */
const CAMPAIGN_MS = 900_000
/** More than enough to notice what is wrong on purpose; the first failure ends it. */
const RUNS_TO_NOTICE = 150

/** A flush of the disk in a restore is hit in one run of 100: once in 20 times not at all in RUNS. */
const MOST_MORE = 9
/** Operations in which a cut has to have come. */
const MOMENTS = [
  /^session: log write$/,
  /^session: log flush$/,
  /^session: disk write$/,
  /^session, close: log write at 0$/,
  /^restore: disk write$/,
  /^restore: disk flush$/,
  /^restore, clear: log write$/,
  /^restore, reset: log write at 0$/,
  /^restore, open: /,
  /^SIGKILL, session: /,
  /^SIGKILL, restore/,
]

const numbers = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i)

function run(seed: number, runs: readonly number[], order?: WrongOrder): Promise<CampaignResult> {
  const { signal } = new AbortController()
  return campaign({ seed, runs, jobs: 2, order, mostFailures: 1, signal, progress: () => undefined })
}

describe('the crash campaign', () => {
  const dir = useTempDir()
  const { TMPDIR } = process.env
  beforeAll(() => {
    process.env.TMPDIR = dir()
  })
  afterAll(async () => {
    if (TMPDIR === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = TMPDIR
    expect(await readdir(dir())).toEqual([])
  })

  it('misses no write and calls nothing clean that is not, over 300 runs', { timeout: CAMPAIGN_MS }, async () => {
    const seed = testSeed('crash campaign')
    const result = await run(seed, numbers(RUNS))
    expect(result.runs).toBe(RUNS)
    // The moments that matter were hit, and the log was asked when it had something to say. Some are rare: then there are more runs.
    const cuts = new Set(result.cuts.keys())
    const missed = (): RegExp[] => MOMENTS.filter((moment) => ![...cuts].some((cut) => moment.test(cut)))
    const failed = [...result.failed]
    for (let more = 1; more <= MOST_MORE && missed().length > 0; more++) {
      const others = await run(seed, numbers(RUNS, more * RUNS))
      for (const cut of others.cuts.keys()) cuts.add(cut)
      failed.push(...others.failed)
    }
    expect(failed, `repeat with npm run crash -- --seed ${seed} --run ${failed[0]?.run}`).toEqual([])
    expect(missed()).toEqual([])
    for (const [state, least] of [
      ['clean', RUNS],
      ['dirty', RUNS],
      ['unknown', RUNS / 4],
    ] as const)
      expect(result.states.get(state), state).toBeGreaterThan(least)
  })

  it.each(Object.keys(WRONG_ORDERS) as WrongOrder[])('fails when the machines are built for %s', async (order) => {
    const result = await run(testSeed(order), numbers(RUNS_TO_NOTICE), order)
    expect(result.failed.length).toBeGreaterThan(0)
    expect(result.failed[0]!.faults.join('\n')).toMatch(/missed|were offered and are not durable|are wrong after/)
  })

  it('repeats a run exactly from its seed and number', async () => {
    const records = []
    for (let time = 0; time < 2; time++) {
      const runs = await CrashRuns.open(7)
      // By itself, and after others.
      if (time === 1) await runs.run(2)
      records.push([await runs.run(3), await runs.run(50)])
      await runs.close()
    }
    expect(records[0]).toEqual(records[1])
    expect(records[0]![0]!.disks.length).toBeGreaterThan(2)
  })

  it('is a command that fails when a run does, and says how to repeat it', async () => {
    const command = join(import.meta.dirname, '../../tools/crash/crash.ts')
    const args = [command, '--seed', '5', '--runs', '40', '--wrong', 'clear-before-flush', '--json']
    const failing = promisify(execFile)(process.execPath, args)
    const outcome = (await failing.catch((error: unknown) => error)) as { code: number; stdout: string; stderr: string }
    expect(outcome.code).toBe(1)
    const result = JSON.parse(outcome.stdout) as { failed: { run: number; faults: string[] }[] }
    expect(result).toMatchObject({ event: 'crash', seed: 5 })
    const { run, faults } = result.failed[0]!
    const again = `--seed 5 --run ${run} --wrong clear-before-flush`
    expect(outcome.stderr).toContain(`npm run crash -- ${again}`)
    const repeated = promisify(execFile)(process.execPath, [command, ...again.split(' '), '--json'])
    const { stdout } = (await repeated.catch((error: unknown) => error)) as { stdout: string }
    expect(JSON.parse(stdout)).toMatchObject({ runs: 1, passed: 0, failed: [{ run, faults }] })
    const passing = await promisify(execFile)(process.execPath, [command, '--seed', '5', '--run', String(run)])
    expect(passing.stdout.trimEnd().split('\n').at(-1)).toBe('1 passed, 0 failed')
    const wrong = promisify(execFile)(process.execPath, [command, '--runs', 'many'])
    await expect(wrong).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('--runs many') })
  })
})
