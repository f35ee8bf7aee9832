import { Bitmap } from '../../protocol/bitmap.ts'
import type { Random } from '../lab/random.ts'
import type { LabFacts, MachineFacts } from './lab-facts.ts'

/** A machine, and the earliest time at which it can be done, whatever the others do. */
interface Planned extends MachineFacts {
  readonly optimumMs: number
}

interface Scenario {
  readonly what: string
  /** Describes the best possible time of one machine. */
  readonly optimum: string
  plan(machines: number, lab: LabPlan, random: Random): Planned[]
}

/** What the scenarios make their machines from. */
export interface LabPlan extends LabFacts {
  /** Speed of an ordinary link in each direction. */
  readonly bytesPerMs: number
  /** Number of sites that the machines are spread over, where there are uplinks. */
  readonly sites: number
}

/** Time to send the image once over an ordinary link. */
export function imageMs({ blocks, blockBytes, bytesPerMs }: LabPlan): number {
  return (blocks * blockBytes) / bytesPerMs
}

const LAN = 'lan'
const ONCE = 'the image once over a link'

/** Every scenario by its name: what it is, what each machine needs at best, and the machines. */
export const SCENARIOS = {
  provision: {
    what: 'empty machines, one source',
    optimum: ONCE,
    plan: (machines, lab) => [...sources(1, lab), ...empty(machines, lab)],
  },
  'two-sources': {
    what: 'empty machines, two sources',
    optimum: ONCE,
    plan: (machines, lab) => [...sources(2, lab), ...empty(machines, lab)],
  },
  restore: {
    what: '2 % of each machine are dirty, elsewhere on each; the source is the last to be asked',
    optimum: 'what is dirty once over a link, and the time until it is offered (batches end a little sooner)',
    plan: (machines, lab, random) => [
      ...sources(1, lab).map((source) => ({ ...source, reluctant: true })),
      ...empty(machines, lab).map((machine) => {
        const have = full(lab)
        const dirty = Math.ceil(lab.blocks / 50)
        while (have.length - have.count < dirty) have.clear(random.below(lab.blocks))
        return { ...machine, have, optimumMs: (imageMs(lab) * dirty) / lab.blocks + lab.offerMs }
      }),
    ],
  },
  churn: {
    what: 'of empty machines one in five goes away, and comes back later',
    optimum: `${ONCE}, and the time away`,
    plan: (machines, lab, random) => [
      ...sources(1, lab),
      ...empty(machines, lab).map((machine, i) => {
        if (i % 5 !== 0) return machine
        const fromMs = imageMs(lab) * random.next() * 0.8
        const awayMs = imageMs(lab) * (0.1 + random.next() * 0.4)
        return {
          ...machine,
          away: { fromMs, untilMs: fromMs + awayMs },
          optimumMs: machine.optimumMs + awayMs,
        }
      }),
    ],
  },
  slow: {
    what: 'of empty machines one in ten has a link of a tenth',
    optimum: `${ONCE}, its own`,
    plan: (machines, lab) => [
      ...sources(1, lab),
      ...empty(machines, lab).map((machine, i) =>
        i % 10 === 0 ? { ...machine, bytesPerMs: lab.bytesPerMs / 10, optimumMs: machine.optimumMs * 10 } : machine,
      ),
    ],
  },
  liars: {
    what: 'of empty machines one in ten sends wrong bytes',
    optimum: ONCE,
    plan: (machines, lab) => [
      ...sources(1, lab),
      ...empty(machines, lab).map((machine, i) => (i % 10 === 0 ? { ...machine, lies: true } : machine)),
    ],
  },
  stalls: {
    what: 'of empty machines one in ten falls silent at some time',
    optimum: ONCE,
    plan: (machines, lab, random) => [
      ...sources(1, lab),
      ...empty(machines, lab).map((machine, i) =>
        i % 10 === 0 ? { ...machine, stallsAtMs: imageMs(lab) * random.next() * 0.8 } : machine,
      ),
    ],
  },
  uplink: {
    what: 'empty machines in several sites, the source behind an uplink of a fifth for each; nobody fails',
    optimum: 'the image once over the uplink',
    plan: (machines, lab) => behindUplinks(machines, lab),
  },
  'dying-owners': {
    what: 'the same; one in five of those that fetch over the uplink dies meanwhile, and comes back empty-handed but for its disk',
    optimum: 'the image once over the uplink, and the time away',
    plan: (machines, lab, random) =>
      behindUplinks(machines, lab).map((machine, i) => {
        if (machine.optimumMs === 0 || i % 5 !== 0) return machine
        const fromMs = machine.optimumMs * (0.1 + random.next() * 0.7)
        const awayMs = machine.optimumMs * (0.1 + random.next() * 0.3)
        return { ...machine, away: { fromMs, untilMs: fromMs + awayMs }, optimumMs: machine.optimumMs + awayMs }
      }),
  },
} satisfies Record<string, Scenario>

/** Name of a scenario. */
export type ScenarioName = keyof typeof SCENARIOS

function behindUplinks(machines: number, lab: LabPlan): Planned[] {
  const optimumMs = (imageMs(lab) * lab.bytesPerMs) / lab.uplinkBytesPerMs
  const { sites } = lab
  return [
    ...sources(1, lab).map((source) => ({ ...source, site: 'central', bytesPerMs: sites * lab.bytesPerMs })),
    ...empty(machines, lab).map((machine, i) => ({ ...machine, site: `site${i % sites}`, optimumMs })),
  ]
}

function full({ blocks }: LabFacts): Bitmap {
  const all = new Bitmap(blocks)
  all.setRange(0, blocks)
  return all
}

function sources(count: number, lab: LabPlan): Planned[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `source${i + 1}`,
    isMaster: true,
    bytesPerMs: lab.bytesPerMs,
    site: LAN,
    have: full(lab),
    optimumMs: 0,
  }))
}

function empty(count: number, lab: LabPlan): Planned[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `pc${i + 1}`,
    isMaster: false,
    bytesPerMs: lab.bytesPerMs,
    site: LAN,
    have: new Bitmap(lab.blocks),
    optimumMs: imageMs(lab),
  }))
}
