import { setTimeout as sleep } from 'node:timers/promises'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { measure, peakOf } from '../bench/benches.ts'
import { firstDifference } from '../lab/compare.ts'
import { findNeed, idealSeconds, type Need } from './ideal.ts'
import { type LabOptions, publisherOf } from './lab-options.ts'
import type { Traffic } from './network.ts'
import { type Prepared, prepareLab, type Scenario, type StagingPhase } from './prepare.ts'
import { provision } from './provision.ts'
import { restore } from './restore.ts'
import { ShapedLab } from './shaped-lab.ts'
import { update } from './update.ts'

const KILL_TICK_MS = 100

const SCENARIOS = { provision, restore, update } as const

/** One machine in the measured phase. */
export interface MachineRun {
  readonly machine: string
  /** Seconds from the common start to the end of its process. */
  readonly seconds: number
  readonly cpuSeconds: number
  readonly peakMib: number
  readonly receipt: RestoreResult
  readonly traffic: Traffic
}

/** The publisher in the measured phase. */
interface SourceRun {
  readonly cpuSeconds: number
  readonly peakMib: number
}

/** What a run measured, and what the content alone asks for. */
export interface LabResult {
  readonly options: LabOptions
  readonly machines: readonly MachineRun[]
  readonly source: SourceRun
  /** What the master and `central` sent and received in the measured phase. */
  readonly master?: Traffic
  readonly central?: Traffic
  readonly need: Need
  /** Undefined if no link is limited. */
  readonly idealSeconds?: number
  readonly publishSeconds?: number
  /** The phase before, in which the machines fetched the release ahead. */
  readonly staging?: StagingPhase
}

/**
 * Prepares a scenario, measures it, and compares every disk afterwards. Fails if a disk differs, or if a receipt does
 * not say what it must. Nothing is left behind, whatever happens. `say` tells people what is being done.
 */
export async function runLab(
  options: LabOptions,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<LabResult> {
  // The bundle is measured, because the bundle is what is installed.
  if (options.build) await import('../build.ts')
  const lab = await ShapedLab.open({ mdns: options.mdns, built: options.build }, signal)
  try {
    say(`preparing ${options.machines} machines, seed ${options.seed}`)
    const prepared = await prepareLab(lab, options)
    const scenario = await SCENARIOS[options.scenario](prepared, signal)
    const disks = prepared.machines.map((machine) => lab.disk(machine))
    const need = await findNeed(scenario.target, disks, signal)
    say('measuring')
    const measured = await measurePhase(prepared, need.fromSource, say)
    say('comparing')
    for (const run of measured.machines) checkReceipt(run, options, scenario)
    for (const disk of disks) {
      const at = await firstDifference(scenario.target, disk, signal)
      if (at !== undefined) throw new Error(`${disk} differs from the image at byte ${at}`)
    }
    const { staging } = scenario
    return {
      options,
      ...measured,
      need,
      ...idealOf(options, need),
      ...publishing(scenario),
      ...(staging === undefined ? {} : { staging }),
    }
  } finally {
    await lab.close()
  }
}

/** Measures from the common start of all restores to the end of the last one. */
async function measurePhase(
  prepared: Prepared,
  fromSource: number,
  say: (line: string) => void,
): Promise<Pick<LabResult, 'machines' | 'source' | 'master' | 'central'>> {
  const { lab, options, machines } = prepared
  const { rate, uplink } = options
  await lab.network.shape({ lan: rate, uplink })
  const publisher = lab.running(publisherOf(options))
  const [trafficBefore, costBefore] = [await lab.network.traffic(), await peakOf(publisher)]
  const startedAt = performance.now()
  let victim: string | undefined
  let over = false
  const kill = async (): Promise<void> => {
    victim = await fetcherInTheMiddle(prepared, trafficBefore, fromSource, () => over)
    if (victim === undefined) return
    say(`killing ${victim}`)
    await lab.kill(victim)
  }
  const restored = Promise.all(
    machines.map((machine) => restoreOne(prepared, machine, startedAt, () => machine === victim)),
  ).finally(() => {
    over = true
  })
  const [runs] = await Promise.all([restored, options.killFetcher ? kill() : undefined])
  if (options.killFetcher && victim === undefined) throw new Error('all was over before a machine could be killed')
  const [after, cost] = [await lab.network.traffic(), await peakOf(publisher)]
  const crossed = (name: string): Traffic | undefined => difference(trafficBefore.get(name), after.get(name))
  const [master, central] = [crossed('master'), crossed('central')]
  return {
    machines: runs.map((run) => ({ ...run, traffic: crossed(run.machine)! })),
    source: { cpuSeconds: (cost.cpuSeconds ?? 0) - (costBefore.cpuSeconds ?? 0), peakMib: cost.peakMib ?? 0 },
    ...(master === undefined ? {} : { master }),
    ...(central === undefined ? {} : { central }),
  }
}

/**
 * Restores one machine. If `isVictim` says that it was killed, it is started again, and goes on from what it had
 * written.
 */
async function restoreOne(
  { lab }: Prepared,
  machine: string,
  startedAt: number,
  isVictim: () => boolean,
): Promise<Omit<MachineRun, 'traffic'>> {
  const run = () => measure(lab.start(machine, ['restore']))
  const {
    cpuSeconds = 0,
    peakMib = 0,
    result,
  } = await run().catch((error) => {
    if (!isVictim()) throw error
    return run()
  })
  const seconds = (performance.now() - startedAt) / 1000
  return { machine, seconds, cpuSeconds, peakMib, receipt: result as unknown as RestoreResult }
}

/** What crossed a port between two counts; undefined if there is no such port. */
function difference(from: Traffic | undefined, to: Traffic | undefined): Traffic | undefined {
  if (from === undefined || to === undefined) return undefined
  return { sent: to.sent - from.sent, received: to.received - from.received }
}

/**
 * Waits until half of the image has crossed the uplink. Returns the machine that has sent most by then: the others have
 * its content from it.
 */
async function fetcherInTheMiddle(
  { lab, machines }: Prepared,
  before: ReadonlyMap<string, Traffic>,
  fromSource: number,
  isOver: () => boolean,
): Promise<string | undefined> {
  while (!isOver()) {
    await sleep(KILL_TICK_MS)
    const now = await lab.network.traffic()
    const sent = (name: string): number => difference(before.get(name), now.get(name))!.sent
    if (sent('central') < fromSource / 2) continue
    return machines.toSorted((a, b) => sent(b) - sent(a))[0]
  }
  return undefined
}

function checkReceipt({ machine, receipt }: MachineRun, options: LabOptions, { release }: Scenario): void {
  const { verified, log, bytes } = receipt
  if (!verified || receipt.release !== release)
    throw new Error(`${machine} restored release ${receipt.release}, verified: ${verified}`)
  const known = (options.scenario === 'restore' && options.log === 'known') || options.scenario === 'update'
  const expected = known ? 'dirty' : 'unknown'
  if (log.state !== expected || log.missed !== undefined)
    throw new Error(`the log of ${machine} was ${JSON.stringify(log)}, not ${expected}`)
  if (options.staged && bytes.received > 0)
    throw new Error(`${machine} received ${bytes.received} bytes though all was staged`)
}

function idealOf(options: LabOptions, need: Need): { idealSeconds?: number } {
  const machine = options.rate ?? Number.POSITIVE_INFINITY
  const source = (options.from === 'central' ? options.uplink : options.rate) ?? Number.POSITIVE_INFINITY
  const seconds = idealSeconds(need, { machine, source: Math.min(machine, source) })
  return seconds > 0 ? { idealSeconds: seconds } : {}
}

function publishing({ publishSeconds }: Scenario): { publishSeconds?: number } {
  return publishSeconds === undefined ? {} : { publishSeconds }
}
