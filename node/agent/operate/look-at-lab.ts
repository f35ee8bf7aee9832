import { setTimeout as sleep } from 'node:timers/promises'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { findName } from '../../../protocol/names.ts'
import {
  describeMachines,
  describeSiteTrouble,
  type LabFacts,
  type LabMachine,
  type Level,
  worst,
} from '../lab/describe-lab.ts'
import { type Sighting, sightingsOf } from '../lab/sightings.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { ReceiptArchive } from '../receipts/receipt-archive.ts'
import { judgeTimes } from '../receipts/receipt-time.ts'
import { listWentBack } from '../receipts/went-back.ts'
import { describeMachine } from './answer-operators.ts'
import { Operator } from './operator.ts'

/** Which machines `mesh lab` is to show. */
export interface LabOptions extends AgentOptions {
  readonly group?: string
  /** Only machines that are not right. */
  readonly trouble: boolean
  /** A machine that is off for longer than this is a warning; milliseconds. */
  readonly awayMs: number
}

/** Result of `mesh lab`. */
export interface LabReport {
  readonly event: 'lab'
  readonly site: string
  /** The worst of all machines looked at and of the site. */
  readonly level: Level
  /** What concerns the site as a whole. */
  readonly trouble: readonly string[]
  /** Of all machines looked at, whether they are shown or not. */
  readonly counts: {
    readonly machines: number
    readonly right: number
    readonly warning: number
    readonly critical: number
    readonly off: number
  }
  readonly machines: readonly LabMachine[]
}

/** `mesh lab`: all machines of the site, as they say now or said last. Errors: NOT_AN_OPERATOR, GROUP_UNKNOWN, those of {@link Operator.open}. */
export async function lookAtLab(options: LabOptions): Promise<LabReport> {
  const operator = await Operator.open(options)
  try {
    return await look(operator, options)
  } finally {
    await operator.close()
  }
}

/** The same again and again, `everyMs` after it was shown, until the signal aborts. */
export async function watchLab(
  options: LabOptions & { readonly everyMs: number },
  show: (report: LabReport) => void,
): Promise<void> {
  const operator = await Operator.open(options)
  try {
    while (!options.signal.aborted) {
      show(await look(operator, options))
      await sleep(options.everyMs, undefined, { signal: options.signal }).catch(() => undefined)
    }
  } finally {
    await operator.close()
  }
}

async function look(operator: Operator, options: LabOptions): Promise<LabReport> {
  const members = await operator.members()
  const [answers] = await Promise.all([
    operator.ask(
      members.map(({ id }) => id),
      { op: 'state' },
    ),
    operator.gatherReceipts(),
  ])
  const now = Date.now()
  const told = new Map<string, Sighting>()
  const states = new Map<string, LabMachine['state']>([[operator.self.id, 'on']])
  for (const answer of answers) {
    if ('reply' in answer) {
      told.set(answer.id, { at: new Date(now).toISOString(), state: answer.reply })
      states.set(answer.id, 'on')
    } else if (!isMeshError(answer.error, 'PEERS_UNREACHABLE')) states.set(answer.id, 'busy')
  }
  const facts = await gatherFacts(options, { told, states, now })
  return report(facts, operator.self.id, options)
}

/** Adds what is kept here to what was told now. */
async function gatherFacts(
  { stateDir, configured, awayMs, version }: LabOptions,
  live: {
    readonly told: Map<string, Sighting>
    readonly states: ReadonlyMap<string, LabMachine['state']>
    readonly now: number
  },
): Promise<LabFacts> {
  const machine = await Machine.read(stateDir, configured)
  try {
    const { home, trust, config } = machine
    const view = trust.view()
    const sightings = new Map<string, Sighting>()
    for await (const [id, sighting] of sightingsOf(home).iterator()) sightings.set(id, sighting)
    for (const [id, sighting] of live.told) sightings.set(id, sighting)
    const own = await describeMachine(machine, version)
    sightings.set(config.id, { at: new Date(live.now).toISOString(), state: own })
    const memberName = (id: string): string | undefined => view.memberById(id)?.name
    return {
      members: view.members,
      sightings,
      states: live.states,
      receipts: judgeTimes(await new ReceiptArchive(home).list(memberName)),
      wentBack: await listWentBack(machine),
      newest: (image) => view.newest(image)?.release,
      metadataExpires: view.expires,
      now: live.now,
      awayMs,
    }
  } finally {
    await machine.close()
  }
}

function report(facts: LabFacts, self: string, { group, trouble }: LabOptions): LabReport {
  const all = describeMachines(facts)
  const wanted = group === undefined ? undefined : findName(all, group, (one) => one.group)?.group
  if (group !== undefined && wanted === undefined)
    throw new MeshError('GROUP_UNKNOWN', `no machine of this site is in group ${group}`)
  const machines = wanted === undefined ? all : all.filter((one) => one.group === wanted)
  const ofSite = describeSiteTrouble(facts)
  const count = (level: Level): number => machines.filter((one) => one.level === level).length
  return {
    event: 'lab',
    site: all.find(({ id }) => id === self)?.site ?? '',
    level: worst([...machines.map(({ level }) => level), ...ofSite.map(([level]) => level)]),
    trouble: ofSite.map(([, text]) => text),
    counts: {
      machines: machines.length,
      right: count('ok'),
      warning: count('warning'),
      critical: count('critical'),
      off: machines.filter(({ state }) => state === 'off').length,
    },
    machines: trouble ? machines.filter(({ level }) => level !== 'ok') : machines,
  }
}
