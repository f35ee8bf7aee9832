/**
 * The room `roll`: the machines of a group are reset in waves.
 * The functions here are the commands of `mesh roll`. The rules are those of node/roll; `MeshFleet` lets them reach the machines through
 * an `Operator`. roll-receipts fetches what became of each reset, roll-file keeps the roll on the operator's machine.
 */

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { MAX_ROLL_MACHINES } from '../../../protocol/constants.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { hasEnded, type Roll, type RollRules } from '../../roll/roll.ts'
import { RollOperator } from '../../roll/roll-operator.ts'
import { newestRoll, type Order, orderRoll } from '../../roll/roll-order.ts'
import { type RollReport, reportOf } from '../../roll/roll-report.ts'
import { type Sight, takenOver, waveMachines } from '../../roll/roll-step.ts'
import { planWaves, type Shortage } from '../../roll/waves.ts'
import { rollWindow } from '../../roll/window.ts'
import type { AgentOptions } from '../machine/options.ts'
import { Operator } from '../operate/operator.ts'
import { MeshFleet } from './mesh-fleet.ts'
import { RollFile } from './roll-file.ts'

/** Options of the commands of `mesh roll`. */
export interface RollOptions extends AgentOptions {
  readonly group: string
}

/** Options of `mesh roll plan` and `mesh roll start`. */
export interface NewRollOptions extends RollOptions {
  /** Default: the image that the machines of the group have, and its newest release. */
  readonly image?: string
  readonly release?: number
  readonly rules: RollRules
}

/** Result of `mesh roll plan`. */
export interface PlannedRoll {
  readonly event: 'roll-plan'
  readonly group: string
  readonly image: string
  readonly release: number
  /** Names of machines. */
  readonly waves: readonly (readonly string[])[]
  /** Who would not be reset, as things stand now. */
  readonly rest: readonly { readonly machine: string; readonly why: string }[]
}

/** Result of the other commands of `mesh roll`. */
export interface RollResult {
  readonly event: 'roll-result'
  readonly roll: Roll
  /** Whether its operator, if that is another process, has said that it heard. */
  readonly heard?: boolean
  readonly report?: RollReport
}

/** `mesh roll plan`. Errors: GROUP_UNKNOWN, IMAGE_UNKNOWN, NOT_AN_OPERATOR, USAGE. */
export async function planRoll(options: NewRollOptions): Promise<PlannedRoll> {
  return withFleet(options, async (fleet, known) => {
    const roll = await newRoll(fleet, known, 1)
    const seen = await fleet.look(roll)
    const machines = waveMachines(roll, { ...seen, now: steadyNow() })
    const { wave: size, holders } = roll.rules
    const plan = planWaves(seen.blocks, machines, { size, holders })
    const planned = new Set(plan.waves.flat())
    const shortages = new Map(plan.rest.map((one) => [one.id, one]))
    const sights = new Map(seen.sights.map((sight) => [sight.id, sight]))
    const nameOf = new Map(roll.machines.map(({ id, name }) => [id, name]))
    const rest = roll.machines.filter(({ id }) => !planned.has(id))
    return {
      event: 'roll-plan',
      group: roll.group,
      image: roll.image,
      release: roll.release,
      waves: plan.waves.map((wave) => wave.map((id) => nameOf.get(id) ?? id)),
      rest: rest.map(({ id, name }) => ({
        machine: name,
        why: whyNot(roll, sights.get(id), shortages.get(id) ?? plan.waitsFor),
      })),
    }
  })
}

/** Why a machine has no place in a wave, as things stand now. `shortage`: blocks that too few others would hold. */
function whyNot({ image, release, rules }: Roll, sight: Sight | undefined, shortage: Shortage | undefined): string {
  if (sight?.up !== true) return rules.wake && sight?.canWake === true ? 'is off: will be powered on' : 'is off'
  if (sight.image !== image) return sight.image === '' ? 'holds no image' : `has image ${sight.image}`
  if (sight.newest < release) return `does not know release ${release} yet`
  if (!sight.told) return 'has not said yet what it holds'
  if (sight.inUse && !rules.evenInUse) return 'is in use'
  if (shortage === undefined) return 'has no turn'
  return `is needed: block ${shortage.block} would be on ${shortage.holders} running machines`
}

/**
 * `mesh roll start`: runs a roll of the group to its end; goes on with this machine's own if it was ended while it ran.
 * Errors: ROLL_TAKEN, ROLL_SUPERSEDED, and as {@link planRoll}.
 */
export async function startRoll(options: NewRollOptions): Promise<RollResult> {
  // Before anything is claimed.
  rollWindow(options.rules.window)
  return withFleet(options, async (fleet, known) => {
    const found = await fleet.rolls(known.group)
    const last = newestRoll(found)
    const epoch = nextEpoch(found)
    if (last === undefined || hasEnded(last) || last.state === 'claimed')
      return runRoll(fleet, await newRoll(fleet, known, epoch), known)
    const taken = (why: string): MeshError =>
      new MeshError('ROLL_TAKEN', `group ${known.group} has a roll already, of ${last.operatorName}: ${why}`)
    if (last.operator !== fleet.self.id) throw taken(`it is ${last.state}`)
    if (last.state !== 'running') throw taken(`it is ${last.state} (${last.why})`)
    if (last.attended && (await give('resume', fleet, known)).heard) throw taken('it runs on this machine')
    return runRoll(fleet, takenOver(last, fleet.self, epoch, steadyNow()), known)
  })
}

/** `mesh roll pause`: tells the roll's operator, wherever it is. Errors: ROLL_UNKNOWN. */
export async function pauseRoll(options: RollOptions): Promise<RollResult> {
  return withFleet(options, async (fleet, known) => ({
    event: 'roll-result',
    ...(await give('pause', fleet, known)),
  }))
}

/**
 * `mesh roll resume` and `abort`: tells the roll's operator; if nobody is at the roll, this process goes on with it, or
 * ends it. `takeOver`: also if its operator is another machine that is silent, or not.
 * Errors: ROLL_UNKNOWN, ROLL_TAKEN, ROLL_SUPERSEDED.
 */
export async function takeUpRoll(
  order: Exclude<Order, 'pause'>,
  options: RollOptions & { readonly takeOver: boolean },
): Promise<RollResult> {
  return withFleet(options, async (fleet, known) => {
    const { roll, heard } = await give(order, fleet, known, options.takeOver)
    if (heard && !options.takeOver) return { event: 'roll-result', roll, heard }
    if (!options.takeOver && roll.attended && roll.operator !== fleet.self.id)
      throw new MeshError(
        'ROLL_TAKEN',
        `${roll.operatorName}, which runs the roll of group ${roll.group}, does not answer`,
      )
    if (hasEnded(roll)) return { event: 'roll-result', roll }
    const epoch = nextEpoch(await fleet.rolls(known.group))
    return runRoll(fleet, takenOver(roll, fleet.self, epoch, steadyNow()), known)
  })
}

/** `mesh roll status`. Errors: ROLL_UNKNOWN. */
export async function rollStatus(options: RollOptions): Promise<RollResult> {
  return withFleet(options, async (fleet, { group }, operator) => {
    const roll = newestRoll(await fleet.rolls(group))
    if (roll === undefined) throw new MeshError('ROLL_UNKNOWN', `group ${group} has had no roll yet`)
    const kept = await new RollFile(operator.directory, group).read()
    const report = kept?.roll.roll === roll.roll && kept.roll.epoch === roll.epoch ? kept.report : undefined
    return { event: 'roll-result', roll, report: report ?? reportOf(roll, await fleet.receipts(roll)) }
  })
}

/** Claims a roll for this process, runs it to its end, and keeps its report. */
async function runRoll(
  fleet: MeshFleet,
  roll: Roll,
  { signal, report }: Pick<RollOptions, 'signal' | 'report'>,
): Promise<RollResult> {
  const running = new RollOperator(roll, { fleet, report, now: steadyNow, local: () => new Date(), pause })
  await running.claim()
  const last = await running.run(signal)
  const made = reportOf(last, await fleet.receipts(last))
  await fleet.keep(last, made)
  return { event: 'roll-result', roll: last, report: made }
}

/** Runs with the machines of the site, and with the options as they are meant: the group spelled as its machines have it, events noted. */
async function withFleet<T, Options extends RollOptions>(
  options: Options,
  run: (fleet: MeshFleet, known: Options, operator: Operator) => Promise<T>,
): Promise<T> {
  const operator = await Operator.open(options)
  try {
    const report = operator.telling(options.report)
    const fleet = new MeshFleet(operator, (text) => report({ type: 'warning', text }))
    return await run(fleet, { ...options, report, group: await fleet.groupNamed(options.group) }, operator)
  } finally {
    await operator.close()
  }
}

/** Gives an order to the operator of the group's roll. `atOnce`: does not wait for it to hear. */
function give(
  order: Order,
  fleet: MeshFleet,
  { group, signal }: Pick<RollOptions, 'group' | 'signal'>,
  atOnce = false,
): ReturnType<typeof orderRoll> {
  const wait = async (ms: number): Promise<void> => {
    await pause(ms, signal)
    if (signal.aborted) throw new MeshError('INTERRUPTED', 'waiting for the operator of the roll was interrupted')
  }
  return orderRoll(order, { fleet, group, by: fleet.self.name, now: steadyNow, pause: wait, wait: !atOnce })
}

/** A roll of the group that nobody has claimed yet. */
async function newRoll(
  fleet: MeshFleet,
  options: Pick<NewRollOptions, 'group' | 'image' | 'release' | 'rules'>,
  epoch: number,
): Promise<Roll> {
  const { group, rules } = options
  const machines = await fleet.machinesOf(group)
  if (machines.length > MAX_ROLL_MACHINES)
    throw new MeshError('USAGE', `group ${group} has ${machines.length} machines; a roll takes ${MAX_ROLL_MACHINES}`)
  const { image, release } = await fleet.target(group, options.image, options.release)
  const now = steadyNow()
  return {
    format: 1,
    roll: randomBytes(6).toString('hex'),
    group,
    epoch,
    sequence: 1,
    operator: fleet.self.id,
    operatorName: fleet.self.name,
    attended: true,
    image,
    release,
    rules,
    state: 'claimed',
    why: '',
    startedAt: now,
    endedAt: 0,
    idleSince: 0,
    forgiven: 0,
    machines: machines.map(({ id, name }) => ({
      id,
      name,
      turn: 'waiting',
      why: '',
      since: now,
      askedAt: 0,
      process: '',
      receipt: '',
    })),
  }
}

function nextEpoch(rolls: readonly Roll[]): number {
  return Math.max(0, ...rolls.map(({ epoch }) => epoch)) + 1
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  // An end is not an error here: whoever waits looks at the signal.
  await sleep(ms, undefined, { signal }).catch(() => undefined)
}

/**
 * Unix milliseconds by a clock that nobody sets: a roll counts its times in them, and must not take machines for lost when the
 * operator's clock is set.
 */
function steadyNow(): number {
  return Math.round(performance.timeOrigin + performance.now())
}
