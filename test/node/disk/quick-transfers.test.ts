import { truncate, writeFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { openDevice } from '../../../node/disk/file-device.ts'
import { QUICK_TRANSFER_BYTES } from '../../../node/disk/limits.ts'
import { QuickTransfers } from '../../../node/disk/quick-transfers.ts'
import { byteOffset } from '../../../protocol/units.ts'
import { codeOf } from '../../support/error-code.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** What waiting for a disk looks like to the thread that waits. */
function busy(ms: number): void {
  for (const until = performance.now() + ms; performance.now() < until; );
}

function fail(): number {
  throw new Error('EIO')
}

describe('quick transfers', () => {
  it.each<[string, number, () => number, boolean]>([
    ['made at once', 4096, () => 4096, true],
    ['not believed when they are short', 4096, () => 100, false],
    ['not believed when they fail', 4096, fail, false],
    ['not tried when they are long', QUICK_TRANSFER_BYTES + 1, () => QUICK_TRANSFER_BYTES + 1, false],
  ])('are %s', (_, length, transfer, done) => {
    expect(new QuickTransfers().try(length, transfer)).toBe(done)
  })

  it('are left to threads for twenty times as long as two in a row had to wait', async () => {
    const quick = new QuickTransfers()
    const begun = performance.now()
    const slow = (): number => {
      busy(3)
      return 512
    }
    expect(quick.try(512, slow)).toBe(true)
    expect(quick.try(512, slow)).toBe(true)
    expect(quick.try(512, () => 512)).toBe(false)
    await expect.poll(() => quick.try(512, () => 512), { interval: 5 }).toBe(true)
    expect(performance.now() - begun).toBeGreaterThan(120)
  })

  it('of a file read and write what the usual ones do, and leave errors to them', async () => {
    const path = `${await temporaryDirectory()}/disk`
    await writeFile(path, Buffer.alloc(8192, 1))
    const device = await openDevice(path, { writable: true })
    // One may be put off because the machine was busy with other things.
    await expect.poll(() => device.writeNow?.(byteOffset(100), Buffer.alloc(5000, 2)), { interval: 10 }).toBe(true)
    const quickly = Buffer.alloc(8192)
    await expect.poll(() => device.readNow?.(byteOffset(0), quickly), { interval: 10 }).toBe(true)
    const usually = Buffer.alloc(8192)
    await device.read(byteOffset(0), usually)
    expect(quickly).toEqual(Buffer.alloc(8192, 1).fill(2, 100, 5100))
    expect(usually).toEqual(quickly)
    await truncate(path, 4096)
    expect(device.readNow?.(byteOffset(4000), quickly.subarray(0, 200))).toBe(false)
    expect(await codeOf(device.read(byteOffset(4000), quickly.subarray(0, 200)))).toBe('DISK_SHRUNK')
    await device.close()
    expect(device.writeNow?.(byteOffset(0), quickly)).toBe(false)
  })
})
