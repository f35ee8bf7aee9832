import { zstdCompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { CompressedLink } from '../../../../node/exchange/ask/compressed-link.ts'
import { BlockPacker, type CodedBlock } from '../../../../node/exchange/serve/block-packer.ts'
import { MAX_WAITING_TO_PACK } from '../../../../node/exchange/serve/limits.ts'
import { Bitmap } from '../../../../protocol/bitmap.ts'
import { GRANULE_SIZE_BYTES } from '../../../../protocol/constants.ts'
import { packBlock, unpackBlock, wantedBytes } from '../../../../protocol/granules.ts'
import { CODING } from '../../../../protocol/messages.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { codeOf } from '../../../support/error-code.ts'
import { testSeed } from '../../../support/seed.ts'
import { systemBytes } from '../../../support/system-bytes.ts'

const random = new Random(testSeed('block packer'))
const none = new Uint8Array()

function arrive(coded: CodedBlock, wanted: number) {
  return new CompressedLink().arrived({ type: 'block', id: 1, ...coded }, wanted)
}

/** A frame of 4096 times A that says it needs a window of 2^log: no single segment, no size, one block of a repeated byte. */
function windowed(log: number): Buffer {
  return Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 0x03, 0x80, 0x00, 0x41])
}

/** A frame of so many times 128 KiB of A; 8192 are 1 GiB. */
function repeated(blocks: number): Buffer {
  const start = windowed(20).subarray(0, 6)
  const block = (last: number): number[] => [0x02 | last, 0x00, 0x10, 0x41]
  return Buffer.from([...start, ...Array.from({ length: blocks - 1 }, () => block(0)).flat(), ...block(1)])
}

describe('BlockPacker', () => {
  it('gives back every block and every set of granules, zeros among them', async () => {
    const packer = new BlockPacker()
    let compressed = 0
    for (const blockSize of [4096, 65536, 1048576]) {
      for (let round = 0; round < 20; round++) {
        const count = blockSize / GRANULE_SIZE_BYTES
        const block = systemBytes(blockSize * (round + 1)).subarray(-blockSize)
        const wanted = new Bitmap(count)
        for (let i = 0; i < count; i++) {
          if (random.next() < 0.2) block.fill(0, i * GRANULE_SIZE_BYTES, (i + 1) * GRANULE_SIZE_BYTES)
          if (random.next() < 0.5) wanted.set(i)
        }
        const mask = round % 2 === 0 || wanted.count === 0 ? undefined : wanted
        const plain = packBlock(block, mask)
        const coded = await packer.pack(plain, 1)
        if (coded.coding === CODING.zstd) {
          compressed++
          expect(coded.payload.byteLength).toBeLessThanOrEqual(plain.payload.byteLength * 0.9)
          expect(coded.packedUs).toBeGreaterThan(0)
        } else expect(coded).toEqual({ ...plain, coding: CODING.plain, packedUs: 0 })
        const got = arrive(coded, wantedBytes(mask, blockSize))
        expect(Buffer.compare(got.payload, plain.payload)).toBe(0)
        expect(got.wireBytes).toBe(coded.payload.byteLength)
        const into = Buffer.from(block)
        for (const i of wanted.values()) if (mask) into.fill(1, i * 4096, (i + 1) * 4096)
        unpackBlock(got, mask, into)
        expect(into.equals(block)).toBe(true)
      }
    }
    expect(compressed).toBeGreaterThan(30)
  })

  it('leaves alone what is random, too small for the client, or nothing but zeros', async () => {
    const packer = new BlockPacker()
    const plainOf = async (block: Uint8Array, from: number) => {
      const packed = packBlock(block, undefined)
      const coded = await packer.pack(packed, from)
      expect(coded.payload).toBe(packed.payload)
      expect([coded.coding, coded.packedUs]).toEqual([CODING.plain, 0])
    }
    for (let round = 0; round < 100; round++) await plainOf(random.bytes(round % 2 === 0 ? 4096 : 65536), 1)
    await plainOf(zstdCompressSync(systemBytes(1048576)).subarray(1000, 1000 + 65536), 1)
    await plainOf(systemBytes(65536), 0)
    await plainOf(systemBytes(65536), 65537)
    await plainOf(Buffer.alloc(65536), 1)
    expect((await packer.pack(packBlock(systemBytes(65536), undefined), 65536)).coding).toBe(CODING.zstd)
  })

  it('sends plain what compressing does not make smaller, though the sample looked like it', async () => {
    const block = Buffer.from(random.bytes(65536))
    // Where the sample is taken.
    for (let at = 0; at < 65536; at += 4096) block.fill(7, at, at + 64)
    const packed = packBlock(block, undefined)
    expect((await new BlockPacker().pack(packed, 1)).payload).toBe(packed.payload)
  })

  it('sends plain what it cannot keep up with, and is ready again afterwards', async () => {
    const packer = new BlockPacker(1)
    const packed = packBlock(systemBytes(65536), undefined)
    const many = Array.from({ length: 400 }, () => packer.pack(packed, 1))
    const codings = (await Promise.all(many)).map(({ coding }) => coding)
    expect(codings.filter((coding) => coding === CODING.zstd)).toHaveLength(1 + MAX_WAITING_TO_PACK)
    const again = await Promise.all(many.slice(0, 5).map(() => packer.pack(packed, 1)))
    expect(again.map(({ coding }) => coding)).toEqual(Array(5).fill(CODING.zstd))
  })
})

describe('CompressedLink', () => {
  const content = systemBytes(65536)
  const frame = zstdCompressSync(content)
  const coded = (payload: Uint8Array, zeros: Uint8Array = none): CodedBlock => ({
    payload,
    zeros,
    coding: CODING.zstd,
    packedUs: 1,
  })
  const refusal = (payload: Uint8Array, wanted: number, zeros: Uint8Array = none) =>
    codeOf(Promise.resolve().then(() => arrive(coded(payload, zeros), wanted)))

  it('takes a frame that unpacks to what is wanted, less the zeros', () => {
    expect(content.equals(arrive(coded(frame), 65536).payload)).toBe(true)
    expect(content.equals(arrive(coded(frame, Buffer.from([0b101])), 65536 + 2 * 4096).payload)).toBe(true)
  })

  it.each([
    ['a longer frame than wanted', frame, 65536 - 4096],
    ['a shorter one', frame, 65536 + 4096],
    ['half a frame', frame.subarray(0, frame.length / 2), 65536],
    ['a frame without its last byte', frame.subarray(0, -1), 65536],
    ['bytes behind the frame', Buffer.concat([frame, Buffer.from('more')]), 65536],
    ['two frames', Buffer.concat([frame, frame]), 65536],
    ['a skippable frame', Buffer.from('502a4d180400000000000000', 'hex'), 65536],
    ['no bytes', none, 65536],
    ['junk', Buffer.from('this is not zstd'), 65536],
    ['plain content', content, 65536],
    ['a window of 2 MiB', windowed(21), 4096],
    ['a window of 2 GiB', windowed(31), 4096],
  ])('refuses %s', async (_, payload, wanted) => {
    expect(await refusal(payload, wanted)).toBe('PROTOCOL_VIOLATION')
  })

  it('takes the frame of those with a small window, so that it was the window that was refused', () => {
    expect(arrive(coded(windowed(20)), 4096).payload).toEqual(Buffer.alloc(4096, 'A'))
  })

  it('refuses more zeros than were wanted', async () => {
    expect(await refusal(frame, 4096, Buffer.from([1]))).toBe('PROTOCOL_VIOLATION')
    expect(await refusal(frame, 4096, Buffer.from([0xff, 0xff]))).toBe('PROTOCOL_VIOLATION')
  })

  it('takes no memory for a bomb', async () => {
    expect(arrive(coded(repeated(1)), 128 * 1024).payload).toEqual(Buffer.alloc(128 * 1024, 'A'))
    const before = process.resourceUsage().maxRSS
    for (const blocks of [2, 8 * 1024]) expect(await refusal(repeated(blocks), 128 * 1024)).toBe('PROTOCOL_VIOLATION')
    expect((process.resourceUsage().maxRSS - before) / 1024).toBeLessThan(200)
  })

  it('compresses at first as on 100 Mbit/s, and then as the link is', () => {
    const link = new CompressedLink()
    const [first, uplink] = [link.packFrom(0, 0), link.packFrom(2_500_000, 2_500_000)]
    expect(first).toBe(link.packFrom(12_500_000, 0))
    expect(first).toBeGreaterThan(4096)
    expect(first).toBeLessThan(65536)
    expect(uplink).toBeGreaterThan(0)
    expect(uplink).toBeLessThan(4096)
    expect(link.packFrom(125_000_000, 0)).toBe(0)
  })

  it('stops asking a peer that compresses slowly, and tries again later', () => {
    const link = new CompressedLink()
    const from = (): number => link.packFrom(0, 0)
    for (let i = 0; i < 200; i++) {
      link.arrived({ type: 'block', id: i, ...coded(frame), packedUs: 20_000 }, 65536)
    }
    expect(from()).toBe(0)
    for (let i = 0; i < 500; i++) {
      link.arrived({ type: 'block', id: i, ...coded(content), coding: CODING.plain }, 65536)
    }
    expect(from()).toBeGreaterThan(0)
  })
})
