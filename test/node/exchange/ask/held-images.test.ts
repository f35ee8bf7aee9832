import { describe, expect, it } from 'vitest'
import { HeldImages } from '../../../../node/exchange/ask/held-images.ts'
import { MAX_UNKNOWN_RUNS } from '../../../../node/exchange/ask/limits.ts'
import type { SignedSize } from '../../../../node/exchange/ask/swarm-options.ts'
import { digestOf, toHex } from '../../../../protocol/digest.ts'
import { MeshError } from '../../../../protocol/errors.ts'
import { RangeSet } from '../../../../protocol/ranges.ts'

const KNOWN = digestOf(Buffer.from('known'))
const LATER = digestOf(Buffer.from('later'))
const SIGNED: SignedSize = { size: 100 * 4096, blockSize: 4096 }
const HUGE: SignedSize = { size: 2 ** 44, blockSize: 4096 }

describe('what a peer says to hold', () => {
  function held() {
    const signed = new Map<string, SignedSize>([[toHex(KNOWN), SIGNED]])
    const violation = (what: string) => new MeshError('PROTOCOL_VIOLATION', `evil sent ${what}`)
    return { signed, images: new HeldImages((root) => signed.get(root), violation) }
  }
  const all = RangeSet.of(0, 100)

  it('is kept for an image that is signed, as large as it is signed', () => {
    const { images } = held()
    images.replace([{ root: KNOWN, ...SIGNED }])
    expect(images.of(toHex(KNOWN))?.length).toBe(100)
    expect(images.change(toHex(KNOWN), all, RangeSet.of(7, 9))).toBe(true)
    images.forget(toHex(KNOWN), 3)
    expect(images.of(toHex(KNOWN))?.count).toBe(99)
    images.change(toHex(KNOWN), RangeSet.empty, RangeSet.of(7, 9))
    expect(images.of(toHex(KNOWN))?.count).toBe(97)
    images.replace([])
    expect([images.isEmpty, images.of(toHex(KNOWN))]).toEqual([true, undefined])
  })

  it('is refused if it contradicts what is signed, or itself', () => {
    const { images } = held()
    expect(() => images.replace([{ root: KNOWN, ...HUGE }])).toThrow(
      /another size of the image [0-9a-f]{8} than is signed/,
    )
    expect(() => images.change(toHex(LATER), all, RangeSet.empty)).toThrow(/have of an image it does not hold/)
    images.replace([{ root: KNOWN, ...SIGNED }])
    for (const [gained, lost] of [
      [RangeSet.of(0, 101), RangeSet.empty],
      [RangeSet.empty, RangeSet.of(100, 101)],
    ] as const)
      expect(() => images.change(toHex(KNOWN), gained, lost)).toThrow(/have beyond the image/)
  })

  it('takes next to nothing for images that nobody has signed, however large they are said to be', () => {
    const { images } = held()
    const before = process.memoryUsage().arrayBuffers
    images.replace(Array.from({ length: 64 }, (_, i) => ({ root: digestOf(Buffer.from(`${i}`)), ...HUGE })))
    for (let i = 0; i < 64; i++) {
      const root = toHex(digestOf(Buffer.from(`${i}`)))
      expect(images.change(root, RangeSet.of(0, 2 ** 32), RangeSet.empty)).toBe(false)
      for (let turn = 0; turn < 4; turn++) {
        const many = RangeSet.from(Array.from({ length: 1000 }, (_, j) => [j * 4 + turn, j * 4 + turn + 1] as const))
        images.change(root, RangeSet.empty, many)
      }
      expect(images.of(root)).toBeUndefined()
    }
    expect(images.isEmpty).toBe(false)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1024 ** 2)
  })

  it('counts as soon as the image is known', () => {
    const { images, signed } = held()
    images.replace([{ root: LATER, ...SIGNED }])
    images.change(toHex(LATER), all, RangeSet.empty)
    images.change(toHex(LATER), RangeSet.empty, RangeSet.of(10, 20))
    expect(images.recogniseAll()).toEqual([])
    signed.set(toHex(LATER), SIGNED)
    expect(images.recogniseAll()).toEqual([toHex(LATER)])
    expect(images.of(toHex(LATER))?.count).toBe(90)
    expect(images.recogniseAll()).toEqual([])
  })

  it('is asked for anew if it was more than is kept, and refused if it is more than the image has', () => {
    const { images, signed } = held()
    images.replace([{ root: LATER, ...HUGE }])
    const runs = Array.from({ length: MAX_UNKNOWN_RUNS + 1 }, (_, i) => [i * 2, i * 2 + 1] as const)
    images.change(toHex(LATER), RangeSet.from(runs), RangeSet.empty)
    signed.set(toHex(LATER), HUGE)
    expect(images.recogniseAll()).toBeUndefined()
    const other = held()
    other.images.replace([{ root: LATER, ...HUGE }])
    other.images.change(toHex(LATER), RangeSet.of(0, 101), RangeSet.empty)
    other.signed.set(toHex(LATER), SIGNED)
    expect(() => other.images.recogniseAll()).toThrow(/have beyond the image/)
  })
})
