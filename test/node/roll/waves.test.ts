import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HolderCounts, nextWave, planWaves, type WaveMachine } from '../../../node/roll/waves.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { testSeed } from '../../support/seed.ts'

const BLOCKS = 40

function bits(blocks: Iterable<number>): Bitmap {
  const bitmap = new Bitmap(BLOCKS)
  for (const block of blocks) bitmap.set(block)
  return bitmap
}
const all = (): Bitmap => bits(Array(BLOCKS).keys())
const machine = (id: string, over: Partial<WaveMachine> = {}): WaveMachine => ({
  id,
  up: true,
  held: all(),
  ready: true,
  ...over,
})

const anyMachines = fc
  .array(
    fc.record({
      up: fc.boolean(),
      ready: fc.boolean(),
      // Most machines hold most blocks.
      lacks: fc.oneof(fc.constant<number[]>([]), fc.array(fc.nat(BLOCKS - 1), { maxLength: BLOCKS })),
    }),
    { minLength: 1, maxLength: 10 },
  )
  .map((list) =>
    list.map(({ up, ready, lacks }, i): WaveMachine => {
      const held = all()
      for (const block of lacks) held.clear(block)
      return { id: `pc${i}`, up, ready, held }
    }),
  )

/** What the rules say, block by block. */
function isSafe(machines: readonly WaveMachine[], wave: readonly string[], holders: number): boolean {
  for (let block = 0; block < BLOCKS; block++) {
    const left = machines.filter(({ id, up, held }) => up && held.has(block) && !wave.includes(id)).length
    const taken = machines.some(({ id, held }) => wave.includes(id) && held.has(block))
    const running = machines.filter(({ up, held }) => up && held.has(block)).length
    const missing = machines.some(({ up, held }) => !up && held.has(block)) && running < holders
    if ((taken && left < holders) || (missing && wave.length > 0)) return false
  }
  return true
}

describe('a wave', () => {
  it('leaves every block on enough machines, and cannot be made larger by one more', () => {
    const seed = testSeed('waves')
    fc.assert(
      fc.property(
        anyMachines,
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 0, max: 4 }),
        (machines, size, holders) => {
          const { ids, heldBack, waitsFor } = nextWave(BLOCKS, machines, { size, holders })
          const ready = machines.filter((one) => one.ready && one.up).map(({ id }) => id)
          expect(ids.length).toBeLessThanOrEqual(size)
          expect(ready).toEqual(expect.arrayContaining([...ids]))
          expect(isSafe(machines, ids, holders)).toBe(true)
          for (const id of ready) {
            if (ids.length < size && !ids.includes(id)) expect(isSafe(machines, [...ids, id], holders)).toBe(false)
          }
          for (const { id, block, holders: left } of heldBack) {
            expect(machines.find((one) => one.id === id)!.held.has(block)).toBe(true)
            expect(left).toBeLessThan(holders)
          }
          if (waitsFor !== undefined) expect(ids).toEqual([])
        },
      ),
      { seed, numRuns: 2000 },
    )
  })

  it('is as large as it may be: all but those that must stay', () => {
    const lab = ['a', 'b', 'c', 'd', 'e'].map((id) => machine(id))
    expect(nextWave(BLOCKS, lab, { size: 9, holders: 2 }).ids).toEqual(['a', 'b', 'c'])
    expect(nextWave(BLOCKS, lab, { size: 2, holders: 2 }).ids).toEqual(['a', 'b'])
    expect(nextWave(BLOCKS, lab, { size: 9, holders: 5 }).heldBack).toHaveLength(5)
  })

  it('waits while what a missing machine held is on too few', () => {
    const lab = [machine('a'), machine('b'), machine('c', { up: false }), machine('d', { held: bits([1]) })]
    expect(nextWave(BLOCKS, lab, { size: 1, holders: 3 })).toEqual({
      ids: [],
      heldBack: [],
      waitsFor: { id: 'c', block: 0, holders: 2 },
    })
    expect(nextWave(BLOCKS, lab, { size: 1, holders: 2 })).toMatchObject({ ids: ['d'] })
  })

  it('counts no block that nobody holds, and holds back those that have what is rare', () => {
    const rare = all()
    const others = all()
    others.clear(7)
    const lab = [machine('a', { held: rare }), ...['b', 'c', 'd'].map((id) => machine(id, { held: others }))]
    // Of block 7 there is one holder, which therefore stays; the others bring it to more.
    expect(nextWave(BLOCKS, lab, { size: 4, holders: 2 })).toEqual({
      ids: ['b', 'c'],
      heldBack: [
        { id: 'd', block: 0, holders: 1 },
        { id: 'a', block: 0, holders: 1 },
      ],
    })
    const nobody = lab.map((one) => ({ ...one, held: others }))
    expect(nextWave(BLOCKS, nobody, { size: 4, holders: 2 }).ids).toEqual(['a', 'b'])
  })
})

describe('the plan of a roll', () => {
  it('names every machine once, in waves, or says why it must stay', () => {
    const seed = testSeed('plans')
    fc.assert(
      fc.property(
        anyMachines,
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 0, max: 3 }),
        (machines, size, holders) => {
          const { waves, rest, waitsFor } = planWaves(BLOCKS, machines, { size, holders })
          const named = [...waves.flat(), ...rest.map(({ id }) => id)]
          expect(new Set(named).size).toBe(named.length)
          const ready = machines.filter((one) => one.ready && one.up).map(({ id }) => id)
          if (waitsFor === undefined) expect(named.sort()).toEqual(ready.sort())
        },
      ),
      { seed },
    )
  })

  it('lets those go later that hold what is rare, once others have it', () => {
    const others = all()
    others.clear(7)
    const lab = [machine('a'), ...['b', 'c', 'd'].map((id) => machine(id, { held: others }))]
    expect(planWaves(BLOCKS, lab, { size: 2, holders: 2 })).toEqual({
      waves: [
        ['b', 'c'],
        ['d', 'a'],
      ],
      rest: [],
    })
    expect(planWaves(BLOCKS, lab, { size: 2, holders: 4 }).waves).toEqual([])
  })
})

describe('the count of holders', () => {
  it('tells the least, over the blocks asked about', () => {
    const counts = new HolderCounts(BLOCKS, [
      machine('a'),
      machine('b', { held: bits([3, 4]) }),
      machine('c', { up: false }),
    ])
    expect(counts.least(bits([3, 4]))).toEqual({ block: 3, holders: 2 })
    expect(counts.least(all())).toEqual({ block: 0, holders: 1 })
    expect(counts.least(new Bitmap(BLOCKS))).toBeUndefined()
    counts.goesDown(bits([3]))
    expect(counts.least(bits([3, 4]))).toEqual({ block: 3, holders: 1 })
  })
})
