import { describe, expect, it } from 'vitest'
import { BlockPicker } from '../../../../node/exchange/ask/block-picker.ts'
import { CLAIM_LIFE_MS, ENDGAME_AGE_MS } from '../../../../node/exchange/ask/limits.ts'
import { FAR_WINDOW_BYTES } from '../../../../node/exchange/uplink/limits.ts'
import { Bitmap } from '../../../../protocol/bitmap.ts'
import { RangeSet } from '../../../../protocol/ranges.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { testSeed } from '../../../support/seed.ts'

const LENGTH = 400
/** So small that the window of the uplink is never in the way. */
const ITEM_BYTES = 4096
const SITE = ['a', 'b', 'c', 'd']
const random = new Random(testSeed('far picker'))

function all(): Bitmap {
  return Bitmap.fromRanges(LENGTH, RangeSet.of(0, LENGTH))
}

function picker(self: string, options: { undivided?: boolean; itemBytes?: number } = {}): BlockPicker {
  const one = new BlockPicker({ wanted: all(), itemBytes: ITEM_BYTES, self, random: () => random.next(), ...options })
  one.addPeer('central', { have: undefined, near: false }, 0)
  return one
}

/** All that a picker would ask the far peer for, if nothing arrived. */
function asksFar(one: BlockPicker): number[] {
  const asked: number[] = []
  for (let index = one.pick('central', 0); index !== -1; index = one.pick('central', 0)) {
    one.markAsked(index, 'central', 0)
    asked.push(index)
  }
  return asked
}

function site(options: { undivided?: boolean } = {}): Map<string, BlockPicker> {
  const pickers = new Map(SITE.map((name) => [name, picker(name, options)]))
  for (const [name, one] of pickers) for (const other of SITE) if (other !== name) one.setFetchesFromFar(other, true)
  return pickers
}

describe('BlockPicker with far peers', () => {
  it('asks them for everything when it is alone', () => {
    expect(asksFar(picker('a')).sort((x, y) => x - y)).toEqual([...all().values()])
  })

  it('divides what only they have: disjoint shares that cover everything', () => {
    const asked = [...site().values()].flatMap(asksFar)
    expect(asked).toHaveLength(LENGTH)
    expect(new Set(asked).size).toBe(LENGTH)
  })

  it('takes over the share of a machine that fails, all machines together, and nothing of the others', () => {
    const pickers = site()
    const before = new Map([...pickers].map(([name, one]) => [name, asksFar(one)]))
    const lost = before.get('d')!
    expect(lost.length).toBeGreaterThan(0)
    pickers.delete('d')
    for (const one of pickers.values()) one.setFetchesFromFar('d', false)
    const taken = [...pickers.values()].flatMap(asksFar)
    expect(taken.sort((x, y) => x - y)).toEqual(lost.sort((x, y) => x - y))
  })

  it('never asks them for what a near peer has, however reluctant or silent that is', () => {
    const one = picker('a')
    one.addPeer('near', { have: Bitmap.fromRanges(LENGTH, RangeSet.of(0, 100)) }, 0)
    one.addPeer('master', { have: Bitmap.fromRanges(LENGTH, RangeSet.of(100, 200)), reluctant: true }, 0)
    one.addPeer('silent', { have: Bitmap.fromRanges(LENGTH, RangeSet.of(200, 300)) }, 0)
    one.suspendPeer('silent', 0)
    expect(asksFar(one).sort((x, y) => x - y)).toEqual([...RangeSet.of(300, LENGTH).values()])
    one.removePeer('silent')
    expect(asksFar(one).sort((x, y) => x - y)).toEqual([...RangeSet.of(200, 300).values()])
  })

  it('leaves alone what another machine has claimed, until it takes that back', () => {
    const one = picker('a')
    one.setFetchesFromFar('b', true)
    one.setClaims('b', RangeSet.of(0, LENGTH), 0)
    expect(asksFar(one)).toEqual([])
    one.setClaims('b', RangeSet.from([[10, LENGTH + 5]]), 0)
    const asked = asksFar(one)
    expect(asked.every((index) => index < 10)).toBe(true)
    one.setFetchesFromFar('b', false)
    expect([...asked, ...asksFar(one)].sort((x, y) => x - y)).toEqual([...all().values()])
  })

  it('believes no claim for ever, however often it is repeated', () => {
    const one = picker('a')
    one.setFetchesFromFar('b', true)
    for (const now of [0, CLAIM_LIFE_MS / 2, CLAIM_LIFE_MS]) one.setClaims('b', RangeSet.of(0, LENGTH), now)
    expect(one.pick('central', CLAIM_LIFE_MS)).toBe(-1)
    one.setClaims('b', RangeSet.of(0, LENGTH), CLAIM_LIFE_MS + 1)
    expect(one.pick('central', 2 * CLAIM_LIFE_MS)).toBeGreaterThanOrEqual(0)
  })

  it('asks one at a time for what it would inherit, when its own share is asked and has come', () => {
    const one = picker('a')
    one.setFetchesFromFar('b', true)
    for (const index of asksFar(one)) one.delivered(index, 'central')
    const stray = one.pick('central', 0)
    expect(stray).toBeGreaterThanOrEqual(0)
    one.markAsked(stray, 'central', 0)
    expect(one.pick('central', 0)).toBe(-1)
  })

  it('asks nobody far for anything a second time, however slow the first is', () => {
    const one = picker('a')
    one.addPeer('other', { have: undefined, near: false }, 0)
    for (const index of asksFar(one).slice(1)) one.delivered(index, 'central')
    one.setSpeed('other', 1e9)
    expect(one.duplicate('other', 100 * ENDGAME_AGE_MS)).toBe(-1)
  })

  it('has all of a tree fetched by one machine, and by the next when that fails', () => {
    const pickers = site({ undivided: true })
    const asked = [...pickers].map(([name, one]) => ({ name, count: asksFar(one).length }))
    expect(asked.map(({ count }) => count).sort((x, y) => x - y)).toEqual([0, 0, 0, LENGTH])
    const owner = asked.find(({ count }) => count > 0)!.name
    pickers.delete(owner)
    for (const one of pickers.values()) one.setFetchesFromFar(owner, false)
    expect([...pickers.values()].map((one) => asksFar(one).length).sort((x, y) => x - y)).toEqual([0, 0, LENGTH])
  })

  it('shares what may be on its way over the uplink with the others', () => {
    const itemBytes = FAR_WINDOW_BYTES / 32
    const one = picker('a', { itemBytes })
    expect(asksFar(one)).toHaveLength(32)
    const two = picker('a', { itemBytes })
    two.setFetchesFromFar('b', true)
    expect(asksFar(two)).toHaveLength(16)
  })
})
