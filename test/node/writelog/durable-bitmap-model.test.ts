import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DurableBitmap, logFileSize } from '../../../node/writelog/durable-bitmap.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { Power, PowerCut } from '../../../tools/crash/power.ts'
import { PowerCutDevice } from '../../../tools/crash/power-cut-device.ts'
import { Random } from '../../../tools/lab/random.ts'
import { FaultyDevice } from '../../fakes/faulty-device.ts'
import { imaginedDisk } from '../../support/log-disk.ts'
import { testSeed } from '../../support/seed.ts'

const size = 40 * 1024 ** 2
const units = size / 4096
const RELEASE = { release: 3, root: new Uint8Array(32).fill(7) }
/** Short and long runs, over the borders of the log's sectors (3840 units). */
const run = fc
  .tuple(fc.nat(units - 1), fc.oneof(fc.nat(40), fc.nat(6000)))
  .map(([start, n]): [number, number] => [start, Math.min(units, start + n)])

describe('the durable bitmap, against a plain set', () => {
  it('says exactly what was marked and not cleared, however often it is opened', async () => {
    const seed = testSeed('durable bitmap model')
    const step = fc.record({
      kind: fc.constantFrom('mark', 'mark', 'mark', 'clear', 'reset', 'doubt', 'close', 'kill'),
      runs: fc.array(run, { maxLength: 6 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const storage = new FaultyDevice(Buffer.alloc(logFileSize(size)))
        const make = () => new DurableBitmap({ storage, source: 'nbd', disk: imaginedDisk(size), release: RELEASE })
        let log = make()
        await log.open()
        await log.reset(RangeSet.empty)
        let model = RangeSet.empty
        let doubt = ''
        // Whether a kill shows: a log that was found clean says so only once something is marked.
        let used = true
        for (const [i, { kind, runs }] of steps.entries()) {
          const set = RangeSet.from(runs)
          switch (kind) {
            case 'mark':
              // Several at a time; some of them wait for another's flush.
              await Promise.all(runs.map((one) => log.mark(RangeSet.from([one]))))
              model = model.union(set)
              used ||= !set.isEmpty
              break
            case 'clear':
              await log.clear(set)
              if (doubt === '') model = model.subtract(set)
              break
            case 'reset':
              await log.reset(set)
              model = set
              doubt = ''
              used = true
              break
            case 'doubt':
              doubt = `doubt ${i}`
              await log.doubt(doubt)
              break
            default:
              if (kind === 'close') await log.close()
              log = make()
              used &&= kind === 'kill'
              expect(await log.open()).toEqual(
                doubt === ''
                  ? { state: model.isEmpty ? 'clean' : 'dirty', unclean: used }
                  : { state: 'unknown', reason: doubt },
              )
              used ||= !model.isEmpty || doubt !== ''
          }
          expect([...(await log.dirty()).runs()]).toEqual([...model.runs()])
          expect(log.dirtyCount).toBe(model.count)
        }
      }),
      { numRuns: 300, seed },
    )
  })

  it('never loses a mark that was promised, wherever the power goes', async () => {
    const seed = testSeed('durable bitmap power cuts')
    const step = fc.record({ kind: fc.constantFrom('mark', 'mark', 'clear', 'reset'), run })
    const disk = imaginedDisk(size)
    const make = (content: Buffer, power: Power) =>
      new DurableBitmap({ storage: new PowerCutDevice('log', content, power), source: 'nbd', disk, release: RELEASE })
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 25 }),
        fc.nat(120),
        fc.nat(),
        async (steps, operations, randomSeed) => {
          const random = new Random(randomSeed)
          const storage = new PowerCutDevice('log', Buffer.alloc(logFileSize(size)), new Power(random, 1e9))
          const first = new DurableBitmap({ storage, source: 'nbd', disk, release: RELEASE })
          await first.open()
          await first.reset(RangeSet.empty)
          await first.close()
          const power = new Power(random, operations)
          const cut = new PowerCutDevice('log', storage.content(), power)
          const log = new DurableBitmap({ storage: cut, source: 'nbd', disk, release: RELEASE })
          // What must be dirty: promised, and not cleared since; a clear may be begun long before it is durable.
          let promised = RangeSet.empty
          const marks: Promise<void>[] = []
          try {
            await log.open()
            for (const { kind, run } of steps) {
              const set = RangeSet.from([run])
              if (kind === 'mark') {
                const mark = log.mark(set).then(() => {
                  promised = promised.union(set)
                })
                // Whether it was cut off is looked at below.
                mark.catch(() => undefined)
                marks.push(mark)
                if (random.below(2) === 0) await Promise.all(marks)
                else await turns(random.below(6))
              } else {
                await Promise.all(marks)
                if (kind === 'clear') {
                  promised = promised.subtract(set)
                  await log.clear(set)
                } else {
                  // Until the reset is done either of the two states may be found.
                  const before = promised
                  promised = before.intersect(set)
                  await log.reset(set)
                  promised = set
                }
              }
            }
            await Promise.all(marks)
          } catch (error) {
            if (!(error instanceof PowerCut)) throw error
          }
          await Promise.allSettled(marks)
          const found = make(cut.afterCut(random), new Power(random, 1e9))
          const state = await found.open()
          expect(state.state).not.toBe('unknown')
          expect(promised.subtract(await found.dirty()).isEmpty).toBe(true)
        },
      ),
      { numRuns: 400, seed },
    )
  })
})

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}
