import type { Random } from '../lab/random.ts'
import type { Model } from './model.ts'
import { type Cut, type MachineRecord, type Parts, SimulatedMachine } from './simulated-machine.ts'

const UNIT_SIZES = [512, 4096] as const
const MOST_OPERATIONS = 400
/** Blocks that peers have when they do not have all: fewer than a session dirties. */
const MOST_SCARCE_BLOCKS = 25
const NEVER: Cut = { operations: Number.POSITIVE_INFINITY }
const RESTORE_AIMS = ['format', 'open', 'clear', 'reset', 'close'].map((call) => `restore, ${call}`)
const SESSION_AIMS = ['session, open', 'session', 'session, close']
/** Tries of a restore whose peers run out of blocks or whose power is cut. The last try is let finish. */
const MOST_TRIES = 4

/**
 * Takes one machine through several days of sessions and restores, with power cuts all along, and through a last
 * restore that must succeed. `faults` of the record is empty if the log missed no write and called nothing wrong clean.
 */
export async function powerCutRun(model: Model, random: Random, parts: Parts): Promise<MachineRecord> {
  const unitSize = UNIT_SIZES[random.below(UNIT_SIZES.length)]!
  const machine = new SimulatedMachine(model, unitSize, firstDisk(model, random), random, parts)
  for (let days = 2 + random.below(3); days > 0; days--) {
    // One restore in four wants the other release.
    const release = model.releases[random.below(4) === 0 ? 1 : 0]
    for (let tries = random.below(MOST_TRIES); tries > 0; tries--) {
      const blocks = random.below(2) === 0 ? random.below(MOST_SCARCE_BLOCKS) : Number.POSITIVE_INFINITY
      if (await machine.restore(release, cut(random, RESTORE_AIMS), blocks)) break
    }
    if (random.below(3) > 0) await machine.restore(release, NEVER, Number.POSITIVE_INFINITY)
    for (let sessions = random.below(4); sessions > 0; sessions--)
      await machine.session(cut(random, SESSION_AIMS), random.below(2) === 0)
  }
  const last = model.releases[random.below(2)]!
  if (!(await machine.restore(last, NEVER, Number.POSITIVE_INFINITY)))
    machine.record.faults.push('a restore that nothing disturbed did not succeed')
  return machine.record
}

/**
 * Chooses a cut. Half of the cuts come at any time, often early. The other half come during an activity that is short
 * and matters.
 */
function cut(random: Random, aims: readonly string[]): Cut {
  const operations = random.below(1 + random.below(MOST_OPERATIONS))
  if (random.below(2) === 0) return { operations }
  return { operations: MOST_OPERATIONS, aim: aims[random.below(aims.length)]! }
}

/** Makes a fresh disk, a disk with the image, or a disk with parts of it. */
function firstDisk(model: Model, random: Random): Buffer {
  const disk = Buffer.alloc(model.diskSize, random.below(256))
  const kind = random.below(3)
  if (kind > 0) model.releases[0].image.copy(disk)
  if (kind > 1) {
    const at = random.below(model.diskSize)
    disk.fill(0, at, Math.min(model.diskSize, at + random.below(model.diskSize)))
  }
  return disk
}
