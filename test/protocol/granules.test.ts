import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Bitmap } from '../../protocol/bitmap.ts'
import { isMeshError } from '../../protocol/errors.ts'
import {
  decodeGranules,
  encodeGranules,
  granuleChecks,
  packBlock,
  sentGranules,
  unpackBlock,
  unpackWhole,
} from '../../protocol/granules.ts'

const GRANULE = 4096

/** A block of 1 to 16 granules, some of them zeros, and a wish for some or all of it. */
const cases = fc.integer({ min: 0, max: 4 }).chain((exponent) => {
  const count = 2 ** exponent
  const some = fc.array(fc.boolean(), { minLength: count, maxLength: count })
  return fc.record({
    count: fc.constant(count),
    zero: some,
    wish: fc.option(some.filter((list) => list.includes(true))),
  })
})

function makeBlock(zero: readonly boolean[]): Buffer {
  return Buffer.concat(zero.map((isZero, i) => Buffer.alloc(GRANULE, isZero ? 0 : i + 1)))
}

function setOf(list: readonly boolean[] | null): Bitmap | undefined {
  if (list === null) return undefined
  const set = new Bitmap(list.length)
  for (const [i, on] of list.entries()) if (on) set.set(i)
  return set
}

describe('granules', () => {
  it('bring over exactly what was asked for, and no zeros', () => {
    fc.assert(
      fc.property(cases, ({ count, zero, wish }) => {
        const block = makeBlock(zero)
        const wanted = setOf(wish)
        const packed = packBlock(block, wanted)
        const asked = [...Array(count).keys()].filter((i) => wanted?.has(i) ?? true)
        expect(packed.payload.byteLength).toBe(asked.filter((i) => !zero[i]).length * GRANULE)
        const into = Buffer.alloc(count * GRANULE, 0xee)
        unpackBlock(packed, wanted, into)
        for (let i = 0; i < count; i++) {
          const expected = asked.includes(i)
            ? block.subarray(i * GRANULE, (i + 1) * GRANULE)
            : Buffer.alloc(GRANULE, 0xee)
          expect(into.subarray(i * GRANULE, (i + 1) * GRANULE).equals(expected)).toBe(true)
        }
        if (wanted === undefined) expect(Buffer.from(unpackWhole(packed, block.byteLength)).equals(block)).toBe(true)
      }),
    )
  })

  it('are left out where the other side has them, as their checks tell', () => {
    const mine = fc.array(fc.boolean(), { minLength: 16, maxLength: 16 })
    fc.assert(
      fc.property(cases, mine, ({ count, zero, wish }, same) => {
        const block = makeBlock(zero)
        const here = Buffer.from(block)
        for (let i = 0; i < count; i++) if (!same[i]) here.fill(0xdd, i * GRANULE, (i + 1) * GRANULE)
        const packed = packBlock(block, setOf(wish), granuleChecks(here))
        const asked = [...Array(count).keys()].filter((i) => wish?.[i] ?? true)
        const sent = sentGranules(packed, setOf(wish), block.byteLength)
        const coming = sent === undefined ? asked : [...sent.values()]
        expect(coming).toEqual(asked.filter((i) => !same[i]))
        expect(packed.payload.byteLength).toBe(coming.filter((i) => !zero[i]).length * GRANULE)
        unpackBlock(packed, sent, here)
        for (const i of asked) {
          const [start, end] = [i * GRANULE, (i + 1) * GRANULE]
          expect(here.subarray(start, end).equals(block.subarray(start, end))).toBe(true)
        }
      }),
    )
  })

  it('cost no copy when all of a block travels', () => {
    const block = makeBlock([false, false])
    expect(packBlock(block, undefined)).toEqual({ payload: block, zeros: new Uint8Array() })
    expect(packBlock(block, undefined).payload).toBe(block)
    expect(unpackWhole({ payload: block, zeros: new Uint8Array() }, block.byteLength)).toBe(block)
  })

  it('are coded least significant bit first, and nothing at all is everything', () => {
    const set = setOf([
      true,
      false,
      false,
      false,
      false,
      false,
      false,
      false,
      false,
      true,
      false,
      false,
      true,
      false,
      false,
      false,
    ])
    expect([...encodeGranules(set)]).toEqual([0b00000001, 0b00010010])
    expect([...decodeGranules(Buffer.from([1, 0x12]), 65536)!.values()]).toEqual([0, 9, 12])
    expect(encodeGranules(undefined).byteLength).toBe(0)
    expect(decodeGranules(new Uint8Array(), 65536)).toBeUndefined()
  })

  it('are refused when they do not fit the block or the wish', () => {
    const wanted = setOf([true, false])
    const into = Buffer.alloc(2 * GRANULE)
    const none = new Uint8Array()
    const granule = Buffer.alloc(GRANULE, 1)
    for (const wrong of [
      () => decodeGranules(Buffer.from([1]), 65536),
      () => decodeGranules(Buffer.from([0, 0]), 65536),
      () => unpackBlock({ payload: none, zeros: none }, wanted, into),
      () => unpackBlock({ payload: Buffer.concat([granule, granule]), zeros: none }, wanted, into),
      () => unpackBlock({ payload: granule, zeros: Buffer.from([2]) }, wanted, into),
      () => unpackBlock({ payload: granule.subarray(1), zeros: none }, wanted, into),
      () => packBlock(into, undefined, granuleChecks(granule)),
      () => sentGranules({ payload: none, zeros: none, kept: Buffer.from([1, 0]) }, undefined, 2 * GRANULE),
      () => unpackWhole({ payload: granule, zeros: none }, 2 * GRANULE),
    ]) {
      let code = ''
      try {
        wrong()
      } catch (error) {
        code = isMeshError(error) ? error.code : String(error)
      }
      expect(code).toBe('PROTOCOL_VIOLATION')
    }
  })
})
