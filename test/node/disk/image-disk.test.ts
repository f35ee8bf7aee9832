import { open, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openDevice } from '../../../node/disk/file-device.ts'
import { ImageDisk } from '../../../node/disk/image-disk.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { Random } from '../../../tools/lab/random.ts'
import { FaultyDevice } from '../../fakes/faulty-device.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const BLOCK = 4096
const random = new Random(2)

describe('ImageDisk', () => {
  it('pads the last block with zeros and writes only what lies inside the image', async () => {
    const content = random.bytes(3 * BLOCK)
    const device = new FaultyDevice(content)
    const disk = new ImageDisk(device, { size: 2 * BLOCK + 100, blockSize: BLOCK })
    expect([disk.blockCount, disk.lengthOf(1), disk.lengthOf(2)]).toEqual([3, BLOCK, 100])
    const tail = await disk.readBlock(2)
    expect(Buffer.compare(tail.subarray(0, 100), content.subarray(2 * BLOCK, 2 * BLOCK + 100))).toBe(0)
    expect(tail.subarray(100).every((byte) => byte === 0)).toBe(true)
    await disk.writeBlock(2, new Uint8Array(BLOCK).fill(5))
    expect(device.bytes.subarray(2 * BLOCK, 2 * BLOCK + 100).every((byte) => byte === 5)).toBe(true)
    expect(Buffer.compare(device.bytes.subarray(2 * BLOCK + 100), content.subarray(2 * BLOCK + 100))).toBe(0)
    expect([disk.bytesRead, disk.bytesWritten]).toEqual([100, 100])
  })

  it('gives every block a buffer of its own', async () => {
    const disk = new ImageDisk(new FaultyDevice(random.bytes(2 * BLOCK)), { size: 2 * BLOCK, blockSize: BLOCK })
    const [a, b] = await Promise.all([disk.readBlock(0), disk.readBlock(1)])
    expect(a.buffer).not.toBe(b.buffer)
    expect(Buffer.compare(a, b)).not.toBe(0)
  })

  it('writes zeros over content, on files and devices', async () => {
    for (const kind of ['file', 'block'] as const) {
      const device = new FaultyDevice(random.bytes(2 * BLOCK), kind)
      const disk = new ImageDisk(device, { size: 2 * BLOCK, blockSize: BLOCK })
      await disk.writeBlock(1, new Uint8Array(BLOCK))
      expect(device.bytes.subarray(BLOCK).every((byte) => byte === 0)).toBe(true)
      expect(device.journal).toEqual([`write ${BLOCK} ${BLOCK}`])
    }
  })

  it('leaves the holes of a sparse file where zeros belong', async () => {
    const path = join(await temporaryDirectory(), 'sparse.img')
    const file = await open(path, 'w')
    await file.close()
    await truncate(path, 1024 * BLOCK)
    const device = await openDevice(path, { writable: true })
    const disk = new ImageDisk(device, { size: 1024 * BLOCK, blockSize: BLOCK })
    for (let i = 0; i < 1024; i++) await disk.writeBlock(i, new Uint8Array(BLOCK))
    await disk.writeBlock(512, random.bytes(BLOCK))
    await disk.flush()
    await device.close()
    expect(disk.bytesWritten).toBe(BLOCK)
    expect((await stat(path)).blocks * 512).toBeLessThan(16 * BLOCK)
  })

  it('keeps what was flushed through a power cut, and of the rest each sector or not', async () => {
    const before = random.bytes(4 * BLOCK)
    const device = new FaultyDevice(before)
    const disk = new ImageDisk(device, { size: 4 * BLOCK, blockSize: BLOCK })
    const [flushed, later] = [random.bytes(BLOCK), random.bytes(BLOCK)]
    await disk.writeBlock(1, flushed)
    await disk.flush()
    await disk.writeBlock(3, later)
    const left = device.afterPowerCut(random)
    expect(Buffer.compare(left.subarray(BLOCK, 2 * BLOCK), flushed)).toBe(0)
    const kinds = new Set<string>()
    for (let at = 0; at < BLOCK; at += 512) {
      const sector = left.subarray(3 * BLOCK + at, 3 * BLOCK + at + 512)
      if (sector.equals(later.subarray(at, at + 512))) kinds.add('new')
      else if (sector.equals(before.subarray(3 * BLOCK + at, 3 * BLOCK + at + 512))) kinds.add('old')
      else kinds.add('torn')
    }
    expect([...kinds].sort()).toEqual(['new', 'old'])
  })

  it('passes on where the disk failed', async () => {
    const device = new FaultyDevice(random.bytes(4 * BLOCK))
    const disk = new ImageDisk(device, { size: 4 * BLOCK, blockSize: BLOCK })
    device.unreadable = RangeSet.of(2 * BLOCK + 512, 2 * BLOCK + 1024)
    device.unwritable = RangeSet.of(0, 1)
    await expect(disk.readBlock(2)).rejects.toMatchObject({ code: 'DISK_IO', detail: { offset: 2 * BLOCK + 512 } })
    await expect(disk.writeBlock(0, random.bytes(BLOCK))).rejects.toMatchObject({
      code: 'DISK_IO',
      detail: { offset: 0 },
    })
    device.space = 100
    await expect(disk.writeBlock(1, random.bytes(BLOCK))).rejects.toMatchObject({
      code: 'DISK_FULL',
      detail: { offset: BLOCK + 100 },
    })
    expect(disk.bytesWritten).toBe(0)
  })

  it('is never made over a disk that is too small, nor asked for a block that is not there', async () => {
    const device = new FaultyDevice(random.bytes(BLOCK))
    expect(() => new ImageDisk(device, { size: BLOCK + 1, blockSize: BLOCK })).toThrow('smaller than the image')
    const disk = new ImageDisk(device, { size: BLOCK, blockSize: BLOCK })
    await expect(disk.readBlock(1)).rejects.toThrow('block 1 of 1')
  })
})
