import { AssertionError } from 'node:assert'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { LogState, WriteLog } from '../../node/writelog/write-log.ts'
import { RangeSet } from '../../protocol/ranges.ts'

/** One write log under test, and how to come back to it. */
export interface WriteLogUnderTest {
  /** Not opened yet. */
  readonly log: WriteLog
  /** Units of the disk it is kept for; at least 64. */
  readonly units: number
  /** The log as the next start of the machine finds it: after {@link WriteLog.close}, or without it (`killed`). */
  again(how: 'closed' | 'killed'): Promise<WriteLog>
}

/**
 * What every write log must satisfy, whatever keeps it. `make` gives a fresh one for each test and sees to its removal.
 * An unknown state satisfies every demand on what a log remembers: the disk is scanned.
 */
export function writeLogCompliance(name: string, make: () => Promise<WriteLogUnderTest>): void {
  describe(`${name} as a write log`, () => {
    it('has a unit of a whole power of two, at least a sector', async () => {
      const { log } = await make()
      expect(Math.log2(log.unitSize) % 1).toBe(0)
      expect(log.unitSize).toBeGreaterThanOrEqual(512)
    })

    it('gives a reason when it knows nothing', async () => {
      const { log } = await make()
      await expectReason(await log.open())
      await log.close()
    })

    it('calls what is marked dirty until it is cleared, and then not before it is marked again', async () => {
      const { log } = await make()
      await log.open()
      await log.mark(RangeSet.of(3, 9))
      expect(covers(await log.dirty(), RangeSet.of(3, 9))).toBe(true)
      await log.clear(RangeSet.of(5, 7))
      const left = await log.dirty()
      expect(left.intersect(RangeSet.of(5, 7)).isEmpty).toBe(true)
      expect(
        covers(
          left,
          RangeSet.from([
            [3, 5],
            [7, 9],
          ]),
        ),
      ).toBe(true)
      await log.mark(RangeSet.of(6, 7))
      expect([(await log.dirty()).has(5), (await log.dirty()).has(6)]).toEqual([false, true])
      await log.close()
    })

    it('takes the same mark and the same clear any number of times', async () => {
      const { log } = await make()
      await log.open()
      const set = RangeSet.from([
        [0, 2],
        [10, 30],
      ])
      for (let i = 0; i < 3; i++) await log.mark(set)
      await Promise.all([log.mark(set), log.mark(RangeSet.of(20, 40)), log.mark(RangeSet.empty)])
      const once = await log.dirty()
      await log.mark(set)
      expect((await log.dirty()).equals(once)).toBe(true)
      for (let i = 0; i < 3; i++) await log.clear(set)
      await log.clear(RangeSet.empty)
      expect((await log.dirty()).intersect(set).isEmpty).toBe(true)
      expect(covers(await log.dirty(), RangeSet.of(30, 40))).toBe(true)
      await log.close()
    })

    it('knows the last unit of the disk', async () => {
      const { log, units } = await make()
      await log.open()
      await log.mark(RangeSet.of(units - 1, units))
      expect((await log.dirty()).has(units - 1)).toBe(true)
      await log.clear(RangeSet.of(0, units))
      expect((await log.dirty()).intersect(RangeSet.of(0, units)).isEmpty).toBe(true)
      await log.close()
    })

    it('is closed once, however often that is asked, and not used after', async () => {
      const { log } = await make()
      await log.open()
      await log.close()
      await log.close()
      for (const use of [
        () => log.open(),
        () => log.dirty(),
        () => log.mark(RangeSet.of(0, 1)),
        () => log.clear(RangeSet.of(0, 1)),
      ]) {
        await expect(use()).rejects.toBeInstanceOf(AssertionError)
      }
    })

    it.each(['closed', 'killed'] as const)('forgets no mark when it was %s', async (how) => {
      const { log, again } = await make()
      await log.open()
      await log.mark(
        RangeSet.from([
          [1, 4],
          [50, 60],
        ]),
      )
      await log.clear(RangeSet.of(2, 3))
      if (how === 'closed') await log.close()
      const next = await again(how)
      const state = await next.open()
      await expectReason(state)
      if (state.state !== 'unknown') {
        expect(state.state).toBe('dirty')
        expect(
          covers(
            await next.dirty(),
            RangeSet.from([
              [1, 2],
              [3, 4],
              [50, 60],
            ]),
          ),
        ).toBe(true)
      }
      await next.close()
    })

    it('never calls a unit clean that was marked and not cleared since', async () => {
      const run = fc
        .tuple(fc.nat(62), fc.nat(20))
        .map(([start, n]): [number, number] => [start, Math.min(start + n, 63)])
      const step = fc.record({
        kind: fc.constantFrom('mark', 'clear', 'reopen'),
        runs: fc.array(run, { maxLength: 4 }),
      })
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
          const { log, again } = await make()
          let current = log
          let state = await current.open()
          let marked = RangeSet.empty
          for (const { kind, runs } of steps) {
            const set = RangeSet.from(runs)
            if (kind === 'reopen') {
              await current.close()
              current = await again('closed')
              state = await current.open()
              // Nothing is asked of what an unknown log remembers.
              if (state.state === 'unknown') marked = RangeSet.empty
              else if (state.state === 'clean') expect(marked.isEmpty).toBe(true)
            } else {
              await (kind === 'mark' ? current.mark(set) : current.clear(set))
              marked = kind === 'mark' ? marked.union(set) : marked.subtract(set)
            }
            expect(covers(await current.dirty(), marked)).toBe(true)
          }
          await current.close()
        }),
        { numRuns: 30 },
      )
    })
  })
}

function covers(set: RangeSet, part: RangeSet): boolean {
  return part.subtract(set).isEmpty
}

async function expectReason(state: LogState): Promise<void> {
  expect(['clean', 'dirty', 'unknown']).toContain(state.state)
  if (state.state === 'unknown') expect(state.reason).toMatch(/\S/)
}
