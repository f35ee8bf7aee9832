import { describe, expect, it } from 'vitest'
import { BlockPicker } from '../../../../node/exchange/ask/block-picker.ts'
import { ENDGAME_AGE_MS, FETCHER_SILENT_MS, PICK_PROBES, PICK_SAMPLE } from '../../../../node/exchange/ask/limits.ts'
import { Bitmap } from '../../../../protocol/bitmap.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { testSeed } from '../../../support/seed.ts'

const LENGTH = 300
const random = new Random(testSeed('block picker'))

function bitmap(has: (index: number) => boolean, length = LENGTH): Bitmap {
  const bits = new Bitmap(length)
  for (let i = 0; i < length; i++) if (has(i)) bits.set(i)
  return bits
}

const all = (length = LENGTH): Bitmap => bitmap(() => true, length)
const none = (length = LENGTH): Bitmap => new Bitmap(length)

function picker(self = 'me', wanted = all()): BlockPicker {
  return new BlockPicker({ wanted, itemBytes: 65_536, self, random: () => random.next() })
}

/** What a picker is told, kept the slow way. */
class Model {
  readonly peers = new Map<string, Set<number>>()
  readonly asked = new Map<number, Set<string>>()
  readonly delivered = new Set<number>()
  readonly wanted: Bitmap

  constructor(wanted: Bitmap) {
    this.wanted = wanted
  }

  get left(): number[] {
    return [...this.wanted.values()].filter((index) => !this.delivered.has(index))
  }

  forget(id: string): void {
    this.peers.delete(id)
    for (const index of [...this.asked.keys()]) this.unasked(index, id)
  }

  unasked(index: number, id: string): void {
    this.asked.get(index)?.delete(id)
    if (this.asked.get(index)?.size === 0) this.asked.delete(index)
  }
}

/** Does something at random to both, and checks what the picker chooses. */
function step(picker: BlockPicker, model: Model, now: number): void {
  const id = `peer${random.below(6)}`
  const held = model.peers.get(id)
  const [open] = [...model.asked].slice(random.below(Math.max(1, model.asked.size)))
  const action = random.below(10)
  if (held === undefined) {
    const part = random.next()
    const have = bitmap(() => part > 0.8 || random.next() < part)
    const place = { near: random.below(2) === 0, reluctant: random.below(2) === 0 }
    picker.addPeer(id, { have: part > 0.8 && random.below(2) === 0 ? undefined : have, ...place }, now)
    model.peers.set(id, new Set(have.values()))
  } else if (action === 0) {
    const start = random.below(LENGTH - 10)
    picker.gained(id, [[start, start + 10]], now)
    for (let i = start; i < start + 10; i++) held.add(i)
  } else if (action === 1) {
    const start = random.below(LENGTH - 3)
    picker.lost(id, [[start, start + 3]])
    for (let i = start; i < start + 3; i++) held.delete(i)
  } else if (action === 2 && random.below(8) === 0) {
    picker.removePeer(id)
    model.forget(id)
  } else if (action === 2) {
    picker.setReluctant(id, random.below(2) === 0)
  } else if (action <= 4 && open !== undefined) {
    const [by] = open[1]
    picker.unasked(open[0], by!)
    model.unasked(open[0], by!)
  } else if (action <= 6 && open !== undefined) {
    const [index, askers] = open
    const [from, ...others] = askers
    expect(picker.delivered(index, from!)).toEqual(others)
    model.asked.delete(index)
    model.delivered.add(index)
  } else ask(picker, model, id, now)
}

function ask(picker: BlockPicker, model: Model, id: string, now: number): boolean {
  let index = picker.pick(id, now)
  if (index !== -1) expect(model.asked.has(index)).toBe(false)
  else {
    index = picker.duplicate(id, now)
    if (index === -1) return false
    const asked = model.asked.get(index)
    expect(asked?.size).toBe(1)
    expect(asked?.has(id)).toBe(false)
    const open = model.left.filter((i) => !model.asked.has(i))
    expect(open.filter((i) => [...model.peers.values()].some((held) => held.has(i)))).toEqual([])
  }
  expect(model.peers.get(id)?.has(index)).toBe(true)
  expect(model.wanted.has(index) && !model.delivered.has(index)).toBe(true)
  picker.markAsked(index, id, now)
  model.asked.set(index, (model.asked.get(index) ?? new Set()).add(id))
  return true
}

function agrees(picker: BlockPicker, model: Model): void {
  const { left } = model
  const pending = left.filter((index) => !model.asked.has(index))
  expect([...picker.left()].sort((a, b) => a - b)).toEqual(left)
  expect(picker.pending).toBe(pending.length)
  expect(picker.asked).toBe(model.asked.size)
  for (const [index, askers] of model.asked) expect(picker.askersOf(index)).toEqual([...askers])
  expect(picker.canServe).toBe(pending.some((i) => [...model.peers.values()].some((held) => held.has(i))))
}

describe('BlockPicker', () => {
  it('asks the master, too, while whoever else has all delivers next to nothing, and spares it again', () => {
    const four = bitmap(() => true, 4)
    const picking = picker('me', four)
    picking.addPeer('slow', { have: four }, 0)
    picking.addPeer('master', { have: undefined, reluctant: true }, 0)
    expect(picking.pick('master', 0)).toBe(-1)
    picking.markAsked(picking.pick('slow', 0), 'slow', 0)
    picking.setReluctant('slow', true)
    expect([picking.asked, picking.pending]).toEqual([1, 3])
    picking.markAsked(picking.pick('master', 0), 'master', 0)
    expect(picking.pick('slow', 0)).not.toBe(-1)
    picking.setReluctant('slow', false)
    expect(picking.pick('master', 0)).toBe(-1)
    expect([picking.asked, picking.pending]).toEqual([2, 2])
  })

  it('never asks for what it must not, and gets everything that somebody has, whatever happens', () => {
    for (let run = 0; run < 40; run++) {
      const wanted = bitmap(() => random.next() < 0.7)
      const [one, model] = [picker('me', wanted), new Model(wanted)]
      let now = 0
      for (let i = 0; i < 400; i++) {
        now += random.below(100)
        step(one, model, now)
        if (i % 20 === 0) agrees(one, model)
      }
      if (!model.peers.has('peer0')) {
        one.addPeer('peer0', { have: none() }, now)
        model.peers.set('peer0', new Set())
      }
      one.gained('peer0', [[0, LENGTH]], now)
      for (let i = 0; i < LENGTH; i++) model.peers.get('peer0')!.add(i)
      for (let rounds = 0; model.left.length > 0; rounds++) {
        expect(rounds).toBeLessThan(10 * LENGTH)
        now += 50
        for (const id of model.peers.keys()) ask(one, model, id, now)
        for (const [index, [from]] of [...model.asked]) {
          one.delivered(index, from!)
          model.asked.delete(index)
          model.delivered.add(index)
        }
      }
      agrees(one, model)
    }
  })

  it('counts those that have an item like a naive count', () => {
    const one = picker()
    const held = new Map<string, Set<number>>()
    for (let i = 0; i < 600; i++) {
      const id = `peer${random.below(8)}`
      const has = held.get(id)
      const start = random.below(LENGTH - 20)
      if (has === undefined) {
        one.addPeer(id, { have: none(), near: random.below(2) === 0 }, 0)
        held.set(id, new Set())
      } else if (random.below(20) === 0) {
        one.removePeer(id)
        held.delete(id)
      } else if (random.below(3) > 0) {
        one.gained(id, [[start, start + 20]], 0)
        for (let at = start; at < start + 20; at++) has.add(at)
      } else {
        one.lost(id, [[start, start + 20]])
        for (let at = start; at < start + 20; at++) has.delete(at)
      }
      if (i % 30 !== 0) continue
      for (let at = 0; at < LENGTH; at++)
        expect(one.holdersOf(at)).toBe([...held.values()].filter((set) => set.has(at)).length)
    }
  })

  it('asks for the rarest of what a peer has, and goes on behind it among equals', () => {
    const one = picker(
      'me',
      bitmap((i) => i < 100),
    )
    for (const id of ['a', 'b']) one.addPeer(id, { have: none() }, 0)
    one.gained('a', [[0, 100]], 0)
    one.gained('b', [[0, 40]], 0)
    one.gained('b', [[43, 100]], 0)
    const asked = [0, 1, 2].map(() => {
      const index = one.pick('a', 0)
      one.markAsked(index, 'a', 0)
      return index
    })
    expect(asked.toSorted()).toEqual([40, 41, 42])
    const first = one.pick('a', 0)
    one.markAsked(first, 'a', 0)
    expect(one.pick('a', 0)).toBe([...one.left()].filter((i) => i > first && one.isPending(i))[0] ?? 0)
  })

  it('divides a source among the machines: disjoint shares that cover everything', () => {
    const names = ['m1', 'm2', 'm3', 'm4', 'm5']
    const asked = names.flatMap((self) => {
      const one = picker(self)
      one.addPeer('source', { have: undefined }, 0)
      for (const other of names) if (other !== self) one.addPeer(other, { have: none() }, 0)
      const own: number[] = []
      for (let index = one.pick('source', 0); index !== -1; index = one.pick('source', 0)) {
        expect(one.isOwn(index)).toBe(true)
        own.push(index)
        one.markAsked(index, 'source', 0)
      }
      return own
    })
    expect(asked.toSorted((a, b) => a - b)).toEqual([...all().values()])
  })

  it('moves only the share of the machine that came, left or fell silent', () => {
    const one = picker()
    one.addPeer('source', { have: undefined }, 0)
    const own = (): number[] => [...all().values()].filter((index) => one.isOwn(index))
    for (const id of ['a', 'b', 'c']) one.addPeer(id, { have: none() }, 0)
    const before = own()
    one.addPeer('d', { have: none() }, 0)
    const with4 = own()
    expect(with4.length).toBeLessThan(before.length)
    expect(with4.filter((index) => !before.includes(index))).toEqual([])
    one.removePeer('d')
    expect(own()).toEqual(before)
    for (const id of ['a', 'b']) one.gained(id, [[0, 1]], FETCHER_SILENT_MS)
    one.pick('source', FETCHER_SILENT_MS)
    const withoutC = own()
    expect(withoutC.length).toBeGreaterThan(before.length)
    expect(before.filter((index) => !withoutC.includes(index))).toEqual([])
    one.gained('c', [[0, 1]], FETCHER_SILENT_MS)
    expect(own()).toEqual(before)
  })

  it('takes of others only one item at a time from a source, when its own share is asked', () => {
    const one = picker()
    one.addPeer('source', { have: undefined }, 0)
    for (const id of ['a', 'b']) one.addPeer(id, { have: none() }, 0)
    const own: number[] = []
    for (let index = one.pick('source', 0); index !== -1; index = one.pick('source', 0)) {
      own.push(index)
      one.markAsked(index, 'source', 0)
    }
    for (const index of own) one.delivered(index, 'source')
    const stray = one.pick('source', 0)
    expect(one.isOwn(stray)).toBe(false)
    one.markAsked(stray, 'source', 0)
    expect(one.pick('source', 0)).toBe(-1)
  })

  it('takes from a source what it likes when alone, or when sources are as many as machines', () => {
    for (const sources of [['s1'], ['s1', 's2']]) {
      const one = picker()
      for (const id of sources) one.addPeer(id, { have: undefined }, 0)
      if (sources.length > 1) one.addPeer('other', { have: none() }, 0)
      for (let i = 0; i < LENGTH; i++) one.markAsked(one.pick('s1', 0), 's1', 0)
      expect(one.pending).toBe(0)
    }
  })

  it('asks ordinary peers rather than a source', () => {
    const one = picker()
    one.addPeer('source', { have: undefined }, 0)
    for (const id of ['a', 'b']) one.addPeer(id, { have: none() }, 0)
    one.gained('a', [[0, 100]], 0)
    for (let i = 0; i < 50; i++) {
      const index = one.pick('source', 0)
      if (index === -1) break
      expect(index).toBeGreaterThanOrEqual(100)
      one.markAsked(index, 'source', 0)
    }
  })

  it('asks a far or reluctant peer only for what no other has', () => {
    for (const [far, reluctant] of [
      [true, false],
      [false, true],
    ] as const) {
      const one = picker()
      one.addPeer('near', { have: bitmap((i) => i !== 7) }, 0)
      one.addPeer('master', { have: undefined, near: !far, reluctant }, 0)
      for (let i = 0; i < LENGTH - 1; i++) one.markAsked(one.pick('near', 0), 'near', 0)
      expect(one.pick('near', 0)).toBe(-1)
      expect(one.pick('master', 0)).toBe(7)
      one.removePeer('near')
      expect(one.pick('master', 0)).not.toBe(-1)
    }
  })

  it('asks twice only at the end, of a peer that is much faster', () => {
    const one = picker(
      'me',
      bitmap((i) => i < 2),
    )
    for (const id of ['slow', 'fast']) one.addPeer(id, { have: undefined }, 0)
    one.setSpeed('slow', 10_000)
    one.setSpeed('fast', 10_000_000)
    one.markAsked(0, 'slow', 0)
    expect(one.duplicate('fast', ENDGAME_AGE_MS)).toBe(-1)
    one.markAsked(1, 'fast', 0)
    expect(one.duplicate('fast', ENDGAME_AGE_MS - 1)).toBe(-1)
    expect(one.duplicate('slow', ENDGAME_AGE_MS)).toBe(-1)
    expect(one.duplicate('fast', ENDGAME_AGE_MS)).toBe(0)
    one.markAsked(0, 'fast', ENDGAME_AGE_MS)
    expect(one.duplicate('fast', 2 * ENDGAME_AGE_MS)).toBe(-1)
    expect(one.delivered(0, 'fast')).toEqual(['slow'])
  })

  it('looks at a bounded number of items of a large image', () => {
    const length = 2_000_000
    const one = picker('me', all(length))
    one.addPeer('source', { have: undefined }, 0)
    for (let i = 0; i < 2; i++) one.addPeer(`peer${i}`, { have: none(length) }, 0)
    one.gained('peer0', [[0, length / 3]], 0)
    let most = 0
    for (let i = 0; i < 3000; i++) {
      const id = i % 2 === 0 ? 'source' : 'peer0'
      const before = one.looked
      const index = one.pick(id, 0)
      most = Math.max(most, one.looked - before)
      one.markAsked(index, id, 0)
    }
    expect(most).toBeGreaterThan(0)
    expect(most).toBeLessThanOrEqual(PICK_PROBES * PICK_SAMPLE + PICK_SAMPLE)
  })
})
