import { open, truncate, writeFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import type { ReadBytes } from '../../../node/disk/gpt.ts'
import { partitionUuid } from '../../../node/disk/partition-table.ts'
import { gptBytes } from '../../support/gpt.ts'
import { orSkip } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const UUIDS = ['12345678-9abc-4def-8123-456789abcdef', 'fedcba98-7654-4321-8fed-cba987654321'] as const
const PARTITIONS = UUIDS.map((uuid, i) => ({ uuid, first: 2048 * (i + 1), last: 2048 * (i + 2) - 1 }))

/** Reads what lies behind the end as zeros. */
function reading(disk: Buffer): ReadBytes {
  return async (offset, length) => {
    const bytes = Buffer.alloc(length)
    disk.copy(bytes, 0, Math.min(offset, disk.length), Math.min(offset + length, disk.length))
    return bytes
  }
}

describe('the partition table', () => {
  it.each([512, 4096])('names the partitions of a GPT in sectors of %d bytes', async (sectorBytes) => {
    const read = reading(gptBytes(PARTITIONS, { sectors: 100_000, sectorBytes }))
    expect(await partitionUuid(read, 1, sectorBytes)).toBe(UUIDS[0])
    expect(await partitionUuid(read, 2, sectorBytes)).toBe(UUIDS[1])
    expect(await partitionUuid(read, 3, sectorBytes)).toBe(undefined)
    expect(await partitionUuid(read, 129, sectorBytes)).toBe(undefined)
  })

  it('names those of an MBR by the disk’s signature', async () => {
    const mbr = Buffer.alloc(512)
    mbr.writeUInt16LE(0xaa55, 510)
    expect(await partitionUuid(reading(mbr), 3, 512)).toBe(undefined)
    mbr.writeUInt32LE(0x0a2b3c4d, 440)
    expect(await partitionUuid(reading(mbr), 3, 512)).toBe('0a2b3c4d-03')
    expect(await partitionUuid(reading(mbr), 17, 512)).toBe('0a2b3c4d-11')
  })

  it('names nothing on a disk without a table, or with a damaged one', async () => {
    expect(await partitionUuid(reading(Buffer.alloc(0)), 1, 512)).toBe(undefined)
    const whole = gptBytes(PARTITIONS, { sectors: 100_000 })
    // Every bit of the header counts, save those that make it another kind of table.
    for (const at of [8, 12, 13, 14, 15, 16, 24, 40, 56, 72, 80, 84, 88]) {
      const damaged = Buffer.from(whole)
      damaged[512 + at]! ^= 0x40
      expect(await partitionUuid(reading(damaged), 1, 512), `byte ${at}`).toBe(undefined)
    }
  })

  it('agrees with sgdisk', async (context) => {
    const image = `${await temporaryDirectory()}/disk`
    await writeFile(image, '')
    await truncate(image, 8 * 1024 ** 2)
    await orSkip(context, 'sgdisk', ['-n1:2048:4095', `-u1:${UUIDS[0]}`, '-n2:4096:6143', `-u2:${UUIDS[1]}`, image])
    const read = async (offset: number, length: number): Promise<Buffer> => {
      await using file = await open(image)
      const bytes = Buffer.alloc(length)
      await file.read(bytes, 0, length, offset)
      return bytes
    }
    expect(await partitionUuid(read, 1, 512)).toBe(UUIDS[0])
    expect(await partitionUuid(read, 2, 512)).toBe(UUIDS[1])
  })
})
