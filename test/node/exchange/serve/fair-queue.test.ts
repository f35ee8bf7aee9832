import { describe, expect, it } from 'vitest'
import { FairQueue } from '../../../../node/exchange/serve/fair-queue.ts'
import { SERVE_QUANTUM_BYTES } from '../../../../node/exchange/serve/limits.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { testSeed } from '../../../support/seed.ts'

const random = new Random(testSeed('fair-queue'))
const KIB = 1024
const MOST = 256 * KIB
const always = (): boolean => true

interface Item {
  readonly cost: number
  readonly number: number
}

const item = (cost: number, number = 0): Item => ({ cost, number })

describe('FairQueue', () => {
  it('gives clients that both wait the same bytes, to one quantum and two items, whatever the sizes of their items', () => {
    for (let round = 0; round < 50; round++) {
      const queue = new FairQueue<Item>()
      const clients = Array.from({ length: 2 + random.below(8) }, (_, i) => `client ${i}`)
      // Some ask for single granules, some for large blocks; some for much more than others.
      for (const client of clients) {
        const [size, spread] = [4 * KIB * (1 + random.below(32)), random.below(2)]
        const count = 100 + random.below(2000)
        for (let n = 0; n < count; n++)
          queue.push(client, item(Math.min(MOST, size + spread * 4 * KIB * random.below(32)), n))
      }
      const got = new Map(clients.map((client) => [client, 0]))
      while (queue.clients.length === clients.length) {
        const { client, item } = queue.take(always)!
        got.set(client, got.get(client)! + item.cost)
        const counts = [...got.values()]
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(SERVE_QUANTUM_BYTES + 2 * MOST)
      }
    }
  })

  it('lets a newcomer’s small request wait for one turn of each of the others at most', () => {
    for (let round = 0; round < 50; round++) {
      const queue = new FairQueue<Item>()
      const others = 1 + random.below(30)
      for (let i = 0; i < others; i++) for (let n = 0; n < 20; n++) queue.push(`client ${i}`, item(64 * KIB))
      for (let n = random.below(others * 4); n > 0; n--) queue.take(always)
      queue.push('newcomer', item(4 * KIB))
      let before = 0
      while (queue.take(always)!.client !== 'newcomer') before++
      expect(before).toBeLessThanOrEqual(others)
    }
  })

  it('keeps the order of one client, loses nothing, and gives nothing to who cannot take it', () => {
    const queue = new FairQueue<Item>()
    const expected: Record<string, number[]> = { a: [], b: [], c: [] }
    for (let n = 0; n < 600; n++) {
      const client = 'abc'[random.below(3)]!
      queue.push(client, item(4 * KIB * (1 + random.below(64)), n))
      expected[client]!.push(n)
    }
    const gone = new Set(expected.a!.filter(() => random.below(3) === 0))
    queue.remove('a', ({ number }) => gone.has(number))
    queue.remove('nobody', () => true)
    expected.a = expected.a!.filter((n) => !gone.has(n))
    const got: Record<string, number[]> = { a: [], b: [], c: [] }
    for (;;) {
      const able = new Set([...'abc'].filter(() => random.below(3) > 0))
      const next = queue.take((client) => able.has(client))
      if (queue.isEmpty && next === undefined) break
      if (next === undefined) {
        expect(queue.clients.some((client) => able.has(client))).toBe(false)
        continue
      }
      expect(able).toContain(next.client)
      got[next.client]!.push(next.item.number)
    }
    expect(got).toEqual(expected)
  })

  it('does not let a client save up what it could not take', () => {
    const queue = new FairQueue<Item>()
    for (let n = 0; n < 4000; n++) for (const client of ['slow', 'fast']) queue.push(client, item(4 * KIB))
    // The slow one takes an item each time it comes round.
    let slowMayTake = true
    for (let n = 0; n < 2000; n++) {
      const { client } = queue.take((one) => one === 'fast' || slowMayTake)!
      slowMayTake = client === 'fast' && random.below(16) === 0
    }
    const counts = { slow: 0, fast: 0 }
    for (let n = 0; n < 1000; n++) counts[queue.take(always)!.client as 'slow' | 'fast']++
    expect(Math.abs(counts.slow - counts.fast)).toBeLessThanOrEqual((SERVE_QUANTUM_BYTES + 8 * KIB) / (4 * KIB))
  })
})
