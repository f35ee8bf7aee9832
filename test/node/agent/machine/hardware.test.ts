import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readHardware, shortFact } from '../../../../node/agent/machine/hardware.ts'
import { MAX_FACT_BYTES, MAX_TOLD_DISKS } from '../../../../protocol/constants.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

async function kernel(files: Readonly<Record<string, string>>) {
  const root = await temporaryDirectory()
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true })
    await writeFile(join(root, name), text)
  }
  return readHardware({ sys: join(root, 'sys'), proc: join(root, 'proc') })
}

describe('what the kernel tells of a computer', () => {
  it('is maker, model, serial number, memory, and disks that are hardware', async () => {
    const told = await kernel({
      'sys/class/dmi/id/sys_vendor': 'Dell Inc.\n',
      'sys/class/dmi/id/product_name': 'OptiPlex 7010\n',
      'sys/class/dmi/id/product_serial': '4XK9TQ1\n',
      'proc/meminfo': 'MemTotal:        8052912 kB\nMemFree: 1 kB\n',
      'sys/block/sda/size': '500118192\n',
      'sys/block/sda/device/model': 'SAMSUNG MZ7LN256\n',
      'sys/block/loop0/size': '2048\n',
      'sys/block/sr0/size': '2048\n',
      'sys/block/nvme0n1/size': '1000215216\n',
      'sys/block/sdb/size': '0\n',
    })
    expect(told).toEqual({
      model: 'Dell Inc. OptiPlex 7010',
      serial: '4XK9TQ1',
      memory: 8052912 * 1024,
      disks: [
        { name: 'nvme0n1', size: 1000215216 * 512, model: '' },
        { name: 'sda', size: 256_060_514_304, model: 'SAMSUNG MZ7LN256' },
      ],
    })
  })

  it('is nothing where the makers have left what they leave, or where there is nothing', async () => {
    const told = await kernel({
      'sys/class/dmi/id/sys_vendor': 'System manufacturer',
      'sys/class/dmi/id/product_name': 'To Be Filled By O.E.M.',
      'sys/class/dmi/id/product_serial': 'Default string',
      'sys/class/dmi/id/board_serial': 'B-17\n',
    })
    expect(told).toEqual({ model: '', serial: 'B-17', memory: 0, disks: [] })
    expect(
      await kernel({ 'proc/device-tree/model': 'Raspberry Pi 4\0', 'proc/device-tree/serial-number': '10000000abc\0' }),
    ).toMatchObject({ model: 'Raspberry Pi 4', serial: '10000000abc' })
  })

  it('fits a message, whatever the firmware says', async () => {
    expect(shortFact('a\u001b[2J\nb')).toBe('a [2J b')
    expect(Buffer.byteLength(shortFact('ü'.repeat(500)))).toBe(MAX_FACT_BYTES)
    expect(shortFact('😀'.repeat(500)).isWellFormed()).toBe(true)
    expect(Buffer.byteLength(shortFact('x😀'.repeat(500)))).toBeLessThanOrEqual(MAX_FACT_BYTES)
    const many = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`sys/block/sd${i}/size`, '8\n']))
    expect((await kernel(many)).disks).toHaveLength(MAX_TOLD_DISKS)
  })
})
