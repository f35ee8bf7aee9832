import { describe, expect, it } from 'vitest'
import { BlockChecker } from '../../../../node/exchange/ask/block-checker.ts'
import { Bitmap } from '../../../../protocol/bitmap.ts'
import { digestOf } from '../../../../protocol/digest.ts'
import { type PackedBlock, packBlock } from '../../../../protocol/granules.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { codeOf } from '../../../support/error-code.ts'
import { testSeed } from '../../../support/seed.ts'

const GRANULE = 4096
const SIZE = 4 * GRANULE
const random = new Random(testSeed('block checker'))

function granulesOf(...indices: number[]): Bitmap {
  const granules = new Bitmap(4)
  for (const i of indices) granules.set(i)
  return granules
}

/** One block of four granules, of which granule 1 is wrong on the disk. */
function makeChecker(alike = false) {
  const block = random.bytes(SIZE)
  const disk = Buffer.from(block)
  disk.set(random.bytes(GRANULE), GRANULE)
  const checker = new BlockChecker({
    root: Buffer.alloc(32),
    level: 0,
    blockSize: SIZE,
    wanted: new Bitmap(1),
    digestOf: () => digestOf(block),
    sparse: {
      granules: () => (alike ? undefined : granulesOf(1)),
      read: async () => Buffer.from(disk),
      isAlike: () => alike,
    },
  })
  const check = (peerId: string, content: PackedBlock) => checker.check(peerId, 0, checker.portion(0, alike), content)
  return { block, disk, checker, check }
}

describe('BlockChecker', () => {
  it('asks for the granules that are wrong here, and makes the whole block of them', async () => {
    const { block, checker, check } = makeChecker()
    expect(checker.portion(0, false)).toMatchObject({ alike: false, size: GRANULE })
    const verdict = await check('peer', packBlock(block, granulesOf(1)))
    expect(verdict).toMatchObject({ is: 'right', neighboursWrong: false, liar: undefined })
    expect(verdict.is === 'right' && Buffer.compare(verdict.data, block)).toBe(0)
  })

  it('asks for the whole of a block that comes out wrong, and then knows the liar', async () => {
    const { block, checker, check } = makeChecker()
    expect(await check('liar', packBlock(random.bytes(SIZE), granulesOf(1)))).toEqual({ is: 'doubtful' })
    expect(checker.portion(0, false)).toMatchObject({ granules: undefined, size: SIZE })
    expect(await check('honest', packBlock(block, undefined))).toMatchObject({ liar: 'liar', neighboursWrong: false })
  })

  it('then knows that this disk was wrong, if it was', async () => {
    const { block, disk, check } = makeChecker()
    disk[0]! ^= 1
    expect(await check('peer', packBlock(block, granulesOf(1)))).toEqual({ is: 'doubtful' })
    expect(await check('peer', packBlock(block, undefined))).toMatchObject({ liar: undefined, neighboursWrong: true })
  })

  it('calls a whole block wrong that is, and takes nothing left out that was not offered', async () => {
    const { block, checker } = makeChecker()
    const whole = { granules: undefined, alike: false, size: SIZE }
    expect(await checker.check('peer', 0, whole, packBlock(random.bytes(SIZE), undefined))).toEqual({ is: 'wrong' })
    const kept = { ...packBlock(block, undefined), kept: Buffer.from([1]) }
    expect(await codeOf(checker.check('peer', 0, whole, kept))).toBe('PROTOCOL_VIOLATION')
  })

  it('tells a far peer what stands here once, and asks for all of it if that came to nothing', async () => {
    const { block, disk, checker, check } = makeChecker(true)
    expect(checker.portion(0, false).alike).toBe(false)
    expect(checker.portion(0, true)).toMatchObject({ alike: true, size: SIZE })
    disk.fill(0xee)
    const rest = { ...packBlock(block, granulesOf(1)), kept: Buffer.from([0b1101]) }
    expect(await check('peer', rest)).toEqual({ is: 'doubtful' })
    expect(checker.portion(0, true).alike).toBe(false)
  })
})
