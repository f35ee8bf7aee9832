import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Changes, ChangeTracker } from '../../../node/writelog/change-tracker.ts'
import { DurableBitmap, logFileSize } from '../../../node/writelog/durable-bitmap.ts'
import { TrackedLog } from '../../../node/writelog/tracked-log.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { Power, PowerCut } from '../../../tools/crash/power.ts'
import { PowerCutDevice } from '../../../tools/crash/power-cut-device.ts'
import { Random } from '../../../tools/lab/random.ts'
import { imaginedDisk } from '../../support/log-disk.ts'
import { testSeed } from '../../support/seed.ts'

const UNIT = 4096
const UNITS = 8000
const RELEASE = { release: 3, root: new Uint8Array(32).fill(7) }

/** A tracker that is right, remembers over a power cut, and can be cut off before and after everything it does. */
class IdealTracker implements ChangeTracker {
  readonly source = 'qemu'
  readonly unitSize = UNIT
  power: Power
  readonly #periods = new Map<string, RangeSet>()
  #begun = 0

  constructor(power: Power) {
    this.power = power
  }

  /** Somebody writes to the disk. */
  written(units: RangeSet): void {
    for (const [name, seen] of this.#periods) this.#periods.set(name, seen.union(units))
  }

  async changedSince(period: string): Promise<Changes> {
    await this.power.tick('tracker')
    const units = this.#periods.get(period)
    return units === undefined ? { state: 'unknown', reason: 'no such period' } : { state: 'known', units }
  }

  async begin(): Promise<string> {
    await this.power.tick('tracker')
    const name = `period ${++this.#begun}`
    this.#periods.set(name, RangeSet.empty)
    await this.power.tick('tracker')
    return name
  }

  async end(keep: string): Promise<void> {
    await this.power.tick('tracker')
    for (const name of this.#periods.keys()) {
      if (name !== keep) this.#periods.delete(name)
      await this.power.tick('tracker')
    }
  }

  get periods(): number {
    return this.#periods.size
  }
}

/** A machine whose disk is written and restored, and whose power may go. */
class Machine {
  readonly random: Random
  readonly tracker: IdealTracker
  #storage: PowerCutDevice
  #power: Power
  /** Units that really differ from the release. */
  differs = RangeSet.empty

  constructor(seed: number) {
    this.random = new Random(seed)
    this.#power = new Power(this.random, Number.POSITIVE_INFINITY)
    this.#storage = new PowerCutDevice('log', Buffer.alloc(logFileSize(UNITS * UNIT)), this.#power)
    this.tracker = new IdealTracker(this.#power)
  }

  /** The power lasts for so many operations. */
  powerFor(operations: number): void {
    this.#power = new Power(this.random, operations)
    this.#storage = new PowerCutDevice('log', this.#storage.afterCut(this.random), this.#power)
    this.tracker.power = this.#power
  }

  write(units: RangeSet): void {
    this.differs = this.differs.union(units)
    this.tracker.written(units)
  }

  log(release = RELEASE): TrackedLog {
    const disk = imaginedDisk(UNITS * UNIT)
    return new TrackedLog(new DurableBitmap({ storage: this.#storage, disk, source: 'qemu', release }), this.tracker)
  }

  /** A restore; `scan`: looks at the whole disk whatever the log says; `meanwhile` is written as the log is opened. */
  async restore(options: { scan?: boolean; meanwhile?: RangeSet } = {}): Promise<{ state: string; repaired: number }> {
    const { scan = false, meanwhile = RangeSet.empty } = options
    const log = this.log()
    const opening = log.open()
    if (!meanwhile.isEmpty) {
      for (let turns = this.random.below(25); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve))
      this.write(meanwhile)
    }
    const { state } = await opening
    // What a scan finds; writes from now on would be found by the tracker.
    if (state === 'unknown' || scan) await log.reset(this.differs)
    const dirty = await log.dirty()
    if (state !== 'unknown' && meanwhile.isEmpty) expect(this.differs.subtract(dirty).isEmpty).toBe(true)
    for (const [start, end] of dirty.runs()) {
      // Restored past the tracker, flushed, then cleared.
      this.differs = this.differs.subtract(RangeSet.of(start, end))
      await log.clear(RangeSet.of(start, end))
    }
    await log.close()
    return { state, repaired: dirty.count }
  }
}

const someRuns = fc
  .array(fc.tuple(fc.nat(UNITS - 1), fc.nat(3000)), { maxLength: 3 })
  .map((runs) => RangeSet.from(runs.map(([at, n]) => [at, Math.min(UNITS, at + n)])))

describe('a log over a change tracker', () => {
  it('is unknown at first, and then restores each write once', async () => {
    const machine = new Machine(1)
    machine.write(RangeSet.of(5, 6))
    expect(await machine.restore()).toEqual({ state: 'unknown', repaired: 1 })
    for (const [start, end] of [
      [10, 20],
      [15, 18],
      [7000, 7001],
    ] as const) {
      machine.write(RangeSet.of(start, end))
      expect(await machine.restore()).toEqual({ state: 'dirty', repaired: end - start })
      expect(machine.tracker.periods).toBe(1)
    }
    expect(await machine.restore()).toEqual({ state: 'clean', repaired: 0 })
  })

  it('says against which other release it was kept, knows what was written since, and moves to this one', async () => {
    const machine = new Machine(2)
    await machine.restore()
    machine.write(RangeSet.of(5, 9))
    const next = { release: 4, root: new Uint8Array(32).fill(8) }
    const log = machine.log(next)
    expect(await log.open()).toMatchObject({ state: 'unknown', against: { release: 3, root: '07'.repeat(32) } })
    expect((await log.dirty()).equals(RangeSet.of(5, 9))).toBe(true)
    await log.reset(RangeSet.of(5, 30))
    await log.close()
    machine.write(RangeSet.of(40, 41))
    const again = machine.log(next)
    expect(await again.open()).toEqual({ state: 'dirty' })
    expect((await again.dirty()).equals(RangeSet.of(5, 30).union(RangeSet.of(40, 41)))).toBe(true)
    await again.close()
    // Of a log that is doubted nothing is said.
    const doubted = machine.log(next)
    await doubted.open()
    await doubted.doubt('it was wrong')
    await doubted.close()
    expect(await machine.log().open()).toEqual({ state: 'unknown', reason: 'it was wrong' })
  })

  it('has what was written while it was opened, at that opening or the next', async () => {
    const seed = testSeed('tracked log, writes meanwhile')
    await fc.assert(
      fc.asyncProperty(someRuns, someRuns, fc.nat(), async (before, meanwhile, randomSeed) => {
        const machine = new Machine(randomSeed)
        await machine.restore()
        machine.write(before)
        await machine.restore({ meanwhile })
        await machine.restore()
        expect(machine.differs.isEmpty).toBe(true)
      }),
      { seed, numRuns: 200 },
    )
  })

  it('never loses a write, wherever the power goes', async () => {
    const seed = testSeed('tracked log power cuts')
    const step = fc.record({
      written: someRuns,
      scan: fc.boolean(),
      operations: fc.option(fc.nat(40), { nil: undefined }),
    })
    let cuts = 0
    let known = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), fc.nat(), async (steps, randomSeed) => {
        const machine = new Machine(randomSeed)
        let begun = false
        for (const { written, scan, operations } of steps) {
          machine.write(written)
          machine.powerFor(operations ?? Number.POSITIVE_INFINITY)
          try {
            const { state } = await machine.restore({ scan })
            // A tracker that loses nothing is never doubted again, either.
            if (begun) expect(state).not.toBe('unknown')
            if (begun) known++
            begun = true
            expect(machine.differs.isEmpty).toBe(true)
          } catch (error) {
            if (!(error instanceof PowerCut)) throw error
            cuts++
          }
        }
        machine.powerFor(Number.POSITIVE_INFINITY)
        await machine.restore()
        expect(machine.differs.isEmpty).toBe(true)
      }),
      { seed, numRuns: 300 },
    )
    console.log(`${cuts} power cuts, ${known} restores from a known log`)
    expect(Math.min(cuts, known)).toBeGreaterThan(100)
  })
})
