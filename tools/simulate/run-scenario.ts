import { Random } from '../lab/random.ts'
import { imageMs, type LabPlan, SCENARIOS, type ScenarioName } from './scenarios.ts'
import { SimulatedLab } from './simulated-lab.ts'

/** A run has failed if it takes 30 times what the slowest link needs for the image. */
const LIMIT = 30

interface ScenarioOptions {
  readonly scenario: ScenarioName
  readonly machines: number
  /** @default one for each 20 machines */
  readonly sites?: number | undefined
  readonly blocks: number
  readonly offerMs: number
  readonly seed: number
}

/** What a scenario showed, as ratios to the best that is possible. */
export interface ScenarioResult extends ScenarioOptions {
  /** Time of the last machine and of the median machine, each divided by the best time that is possible. */
  readonly last: number
  readonly median: number
  /** Bytes out of all sources, divided by the image. */
  readonly source: number
  /** Bytes over all uplinks, divided by the image once for each site; undefined without uplinks. */
  readonly uplink?: number
  /** Blocks that came twice or wrong, as a part of all blocks that came. */
  readonly useless: number
  /** Machines that should have got everything, and did not. */
  readonly unfinished: readonly string[]
}

const BLOCK_BYTES = 64 * 1024
/** 100 Mbit/s. */
const BYTES_PER_MS = 12_500
/** 20 Mbit/s. */
const UPLINK_BYTES_PER_MS = 2_500
const LATENCY_MS = 0.5
const SITE_MACHINES = 20

/** Runs a scenario. The same options give the same result. */
export function runScenario(options: ScenarioOptions): ScenarioResult {
  const { scenario, machines, blocks, offerMs, seed } = options
  const { sites = Math.ceil(machines / SITE_MACHINES) } = options
  const random = new Random(seed)
  const plan: LabPlan = {
    blocks,
    sites,
    offerMs,
    blockBytes: BLOCK_BYTES,
    bytesPerMs: BYTES_PER_MS,
    latencyMs: LATENCY_MS,
    uplinkBytesPerMs: UPLINK_BYTES_PER_MS,
  }
  const planned = SCENARIOS[scenario].plan(machines, plan, random)
  const lab = new SimulatedLab(plan, planned, random)
  lab.run(imageMs(plan) * LIMIT)
  const fetching = lab.machines.flatMap((machine, i) => {
    const { optimumMs } = planned[i]!
    return optimumMs === 0 || machine.isBad ? [] : [{ machine, optimumMs }]
  })
  const rounds = fetching
    .map(({ machine, optimumMs }) => (machine.doneAt ?? Number.POSITIVE_INFINITY) / optimumMs)
    .sort((a, b) => a - b)
  const sum = (of: (machine: (typeof lab.machines)[number]) => number): number =>
    lab.machines.reduce((total, machine) => total + of(machine), 0)
  return {
    ...options,
    last: rounds.at(-1)!,
    median: rounds[Math.floor(rounds.length / 2)]!,
    source: sum((machine) => (machine.name.startsWith('source') ? machine.sentBlocks : 0)) / blocks,
    ...(lab.uplinks.size === 0 ? {} : { uplink: crossed(lab) / (blocks * lab.uplinks.size) }),
    useless: sum((machine) => machine.uselessBlocks) / sum((machine) => machine.receivedBlocks),
    unfinished: fetching.filter(({ machine }) => machine.doneAt === undefined).map(({ machine }) => machine.name),
  }
}

function crossed({ uplinks }: SimulatedLab): number {
  return [...uplinks.values()].reduce((sum, { blocks }) => sum + blocks, 0)
}
