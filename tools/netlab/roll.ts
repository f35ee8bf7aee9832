import { writeFile } from 'node:fs/promises'
import type { RollResult } from '../../node/agent/roll/roll-machines.ts'
import type { RollReport } from '../../node/roll/roll-report.ts'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { firstDifference } from '../lab/compare.ts'
import type { MeshEvent } from '../lab/local-lab.ts'
import { Random } from '../lab/random.ts'
import { ResettingRoom } from '../lab/resetting-room.ts'
import { planDirt, writeToFile } from './dirt.ts'
import type { LabOptions } from './lab-options.ts'
import { prepareLab, provisionedMachines } from './prepare.ts'
import { ShapedLab } from './shaped-lab.ts'

interface RollLabOptions extends Pick<LabOptions, 'machines' | 'size' | 'seed' | 'mdns' | 'build' | 'share'> {
  /** Machines that are down at the same time, at most. */
  readonly wave: number
  readonly holders: number
  /** Time after which a machine that does not come back counts as failed. */
  readonly timeoutSeconds: number
}

/** The result of a night, as `--json` prints it. */
export interface RollLabResult {
  readonly event: 'roll-lab'
  readonly options: RollLabOptions
  /**
   * Steps at which the operator reported the count of holders, the least count, and most machines that were down at one
   * step.
   */
  readonly steps: number
  readonly leastHolders: number
  readonly mostDown: number
  readonly seconds: number
  readonly report: RollReport
}

const OPERATOR = 'office'
const OPERATOR_NUMBER = 252
/** LOST goes down and never comes back; USED is in use all the time. */
const LOST = 'pc2'
const USED = 'pc3'
const PATIENCE_SECONDS = 10

/**
 * Makes a night's roll with real processes. One machine never comes back, one is in use, and the operator is killed
 * when a third of the machines are done, and started again. Fails unless every machine ends as it must, each was reset
 * once, the count of holders never fell below the rule, and the disks are right.
 */
export async function runRollLab(
  options: RollLabOptions,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<RollLabResult> {
  if (options.build) await import('../build.ts')
  const lab = await ShapedLab.open({ mdns: options.mdns, built: options.build }, signal)
  try {
    say(`preparing ${options.machines} machines, seed ${options.seed}`)
    const prepared = await prepareLab(lab, { ...PREPARED, ...options })
    await provisionedMachines(prepared, 'none')
    await lab.add(OPERATOR, OPERATOR_NUMBER, 'lan')
    const { token, group } = await lab.ok('master', ['invite', '--role', 'operator'])
    await lab.ok(OPERATOR, ['join', String(token), '--name', OPERATOR])
    const random = new Random(options.seed + 1)
    const session = (machine: string): Promise<void> =>
      writeToFile(lab.disk(machine), planDirt('uniform', options.size / GRANULE_SIZE_BYTES, options.share, random))
    const room = new ResettingRoom(lab, prepared.machines, { session, lost: new Set([LOST]) })
    await writeFile(room.userFile(USED), 'pupil tty7\n')
    await room.open()
    say('rolling')
    const { events, result, seconds } = await roll(lab, String(group), options)
    await room.close()
    say('comparing')
    const report = check(result, events, room.resets, prepared.machines, options)
    for (const { machine, turn } of report.rows) {
      const at =
        turn === 'verified' ? await firstDifference(lab.path('model.img'), lab.disk(machine), signal) : undefined
      if (at !== undefined) throw new Error(`the disk of ${machine} differs from the image at byte ${at}`)
    }
    const holders = holdersOf(events)
    return {
      event: 'roll-lab',
      options,
      steps: holders.length,
      leastHolders: Math.min(...holders.map(({ least }) => least)),
      mostDown: Math.max(...holders.map(({ down }) => down.length)),
      seconds,
      report,
    }
  } finally {
    await lab.close()
  }
}

/** Options that only other scenarios ask for. */
const PREPARED = {
  scenario: 'restore',
  from: 'master',
  content: 'random',
  dirt: 'uniform',
  log: 'none',
  staged: false,
  killFetcher: false,
} as const

async function roll(
  lab: ShapedLab,
  group: string,
  { machines, wave, holders, timeoutSeconds }: RollLabOptions,
): Promise<{ events: MeshEvent[]; result: RollResult; seconds: number }> {
  const args = ['roll', 'start', '--group', group, '--wave', String(wave), '--holders', String(holders)]
  args.push('--timeout', `${timeoutSeconds}s`, '--patience', `${PATIENCE_SECONDS}s`)
  const startedAt = performance.now()
  const first = lab.start(OPERATOR, args)
  let verified = 0
  const killed = await first.when(({ event, turn }) => {
    if (event === 'turn' && turn === 'verified') verified++
    return verified * 3 >= machines
  })
  if (killed === undefined) throw new Error(`the roll ended too soon: ${(await first.exited).stderr}`)
  const before = await first.stop('SIGKILL')
  const { events, result, stderr } = await lab.start(OPERATOR, args).exited
  if (result?.event !== 'roll-result') throw new Error(`the roll did not end as it must: ${stderr}`)
  const seconds = (performance.now() - startedAt) / 1000
  return { events: [...before.events, ...events], result: result as unknown as RollResult, seconds }
}

function check(
  { roll, report }: RollResult,
  events: readonly MeshEvent[],
  resets: readonly string[],
  machines: readonly string[],
  { holders, wave }: RollLabOptions,
): RollReport {
  const wrong: string[] = []
  if (roll.state !== 'done' || report === undefined) throw new Error(`the roll is ${roll.state}: ${roll.why}`)
  for (const { machine, turn, why, verified, release } of report.rows) {
    const expected = machine === LOST ? 'failed' : machine === USED ? 'skipped' : 'verified'
    if (turn !== expected) wrong.push(`${machine} is ${turn} (${why}), not ${expected}`)
    if (expected === 'verified' && (verified !== true || release !== roll.release))
      wrong.push(`${machine} has no receipt`)
  }
  const expected = machines.filter((machine) => machine !== USED).toSorted()
  if (resets.toSorted().join() !== expected.join()) wrong.push(`reset were ${resets.join(' ')}`)
  for (const { least, down } of holdersOf(events)) {
    if (least < holders) wrong.push(`a block was on ${least} machines while ${down.join(' ')} were down`)
    if (down.length > wave) wrong.push(`${down.join(' ')} were down at a time`)
  }
  if (wrong.length > 0) throw new Error(wrong.join('\n'))
  return report
}

function holdersOf(events: readonly MeshEvent[]): { least: number; down: readonly string[] }[] {
  return events.flatMap(({ event, least, down }) =>
    event === 'holders' ? [{ least: Number(least), down: down as readonly string[] }] : [],
  )
}
