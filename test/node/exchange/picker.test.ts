import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { pickBlock } from '../../../node/exchange/picker.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { Random } from '../../../tools/lab/random.ts'

const LENGTH = 300
const indices = fc.uniqueArray(fc.nat(LENGTH - 1), { maxLength: 80 })

function bitmap(list: Iterable<number>, length = LENGTH): Bitmap {
  const bits = new Bitmap(length)
  for (const index of list) bits.set(index)
  return bits
}

describe('pickBlock', () => {
  it('picks something that is wanted and held, whenever there is something', () => {
    fc.assert(
      fc.property(indices, indices, fc.nat(), (wanted, has, seed) => {
        const random = new Random(seed)
        const picked = pickBlock(
          bitmap(wanted),
          bitmap(has),
          () => 2,
          () => random.next(),
        )
        const possible = wanted.filter((index) => has.includes(index))
        if (possible.length === 0) expect(picked).toBe(-1)
        else expect(possible).toContain(picked)
        const any = pickBlock(
          bitmap(wanted),
          undefined,
          () => 2,
          () => random.next(),
        )
        if (wanted.length === 0) expect(any).toBe(-1)
        else expect(wanted).toContain(any)
      }),
    )
  })

  it('picks the rarest of what it sees', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(LENGTH - 1), { minLength: 1, maxLength: 40 }), fc.nat(), (wanted, seed) => {
        const random = new Random(seed)
        const rare = wanted[seed % wanted.length]!
        const picked = pickBlock(
          bitmap(wanted),
          undefined,
          (index) => (index === rare ? 1 : 5),
          () => random.next(),
        )
        // Fewer than one sample's worth is wanted, so from the start of the image all of it is seen.
        const seen = pickBlock(
          bitmap(wanted),
          undefined,
          (index) => (index === rare ? 1 : 5),
          () => 0,
        )
        expect(seen).toBe(rare)
        expect(wanted).toContain(picked)
      }),
    )
  })

  it('sends machines that start together to different blocks', () => {
    const everything = bitmap(Array(LENGTH).keys())
    const picks = new Set(
      Array.from({ length: 20 }, (_, seed) =>
        pickBlock(
          everything,
          undefined,
          () => 1,
          () => new Random(seed).next(),
        ),
      ),
    )
    expect(picks.size).toBeGreaterThan(15)
  })

  it('looks at a bounded number of blocks of a large image', () => {
    const large = new Bitmap(2_000_000)
    large.setRange(0, large.length)
    let looked = 0
    const random = new Random(1)
    pickBlock(
      large,
      large,
      () => {
        looked++
        return 3
      },
      () => random.next(),
    )
    expect(looked).toBeLessThan(200)
  })
})
