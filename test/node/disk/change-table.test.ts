import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { changePlan } from '../../../node/disk/change-plan.ts'
import { changeTable } from '../../../node/disk/change-table.ts'
import { readerOf } from '../../../node/disk/disk-content.ts'
import { gptTable, readPlan } from '../../../node/disk/gpt-table.ts'
import { type DiskPlan, planDisk } from '../../../node/disk/plan-disk.ts'
import { type DiskLayout, PARTITION_TYPES } from '../../../protocol/disk-layout.ts'
import { Random } from '../../../tools/lab/random.ts'
import { runTool } from '../../../tools/lab/run-tool.ts'
import { FaultyDevice } from '../../fakes/faulty-device.ts'
import { testSeed } from '../../support/seed.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MIB = 1024 ** 2
const ROOT = { label: 'root', image: 'root', type: PARTITION_TYPES.root, size: MIB, grow: false }
const HOME = { label: 'home', type: PARTITION_TYPES.home, size: MIB, grow: true }
const layoutOf = (...partitions: DiskLayout['partitions']): DiskLayout => ({
  esp: MIB,
  state: MIB,
  partitions,
})
/** Power cuts at each moment. */
const CUTS = 10

async function laidOut(sectorBytes: number) {
  const size = 7 * MIB
  const before = planDisk(layoutOf(ROOT), { path: '/dev/sda', size, sectorBytes })
  const table = gptTable(before)
  const disk = Buffer.alloc(size)
  for (const [at, bytes] of [
    [0, table.protectiveMbr],
    [sectorBytes, table.header],
    [table.entriesAt, table.entries],
    [table.backupAt, table.backup],
  ] as const)
    disk.set(bytes, at)
  const change = changePlan(before, layoutOf(ROOT, HOME), () => '1b0f3f6c-4a3e-4b0f-9a3c-0d8a1f6e2c11')
  if ('refused' in change) throw new Error(change.refused)
  return { disk, before, after: change.plan }
}

/** The table that a system finds. */
async function found(disk: Buffer, plan: DiskPlan) {
  const images = new Map([[3, { image: 'root' }]])
  return readPlan(readerOf(new FaultyDevice(disk)), plan, images)
}

describe('changing a table', () => {
  const random = new Random(testSeed('change table'))

  it.each([512, 4096])(
    'leaves the old one or the new one, wherever the power is cut; sectors of %i bytes',
    async (sectorBytes) => {
      const { disk, before, after } = await laidOut(sectorBytes)
      const device = new FaultyDevice(disk)
      const cuts: { readonly at: string; readonly left: Buffer }[] = []
      const cutAfter = (at: string): void => {
        // Of the whole disk only what a table takes can have changed.
        for (let i = 0; i < CUTS; i++) cuts.push({ at, left: tableOf(device.afterPowerCut(random)) })
      }
      const cutting = new Proxy(device, {
        get: (target, name) => {
          const value: unknown = Reflect.get(target, name)
          if (name !== 'write' && name !== 'flush') return typeof value === 'function' ? value.bind(target) : value
          return async (...args: [never, never]) => {
            await (value as (...all: unknown[]) => Promise<void>).apply(target, args)
            cutAfter(target.journal.at(-1)!)
          }
        },
      })
      cutAfter('nothing')
      await changeTable(cutting, after, 0)
      expect(device.journal.map((one) => one.split(' ')[0])).toEqual(['write', 'write', 'flush', 'write', 'flush'])
      expect(device.journal[3]).toBe(`write ${sectorBytes} ${sectorBytes}`)
      for (const { at, left } of cuts) {
        const { plan, place } = (await found(restored(left, disk), before))!
        const isNew = plan.partitions.length === after.partitions.length
        expect({ at, plan, place }).toEqual({ at, plan: isNew ? after : before, place: isNew ? 1 : 0 })
      }
      expect(await found(device.bytes, before)).toEqual({ plan: after, place: 1 })
      // The next change goes back to the first place.
      await changeTable(device, before, 1)
      expect(await found(device.bytes, before)).toEqual({ plan: before, place: 0 })
    },
  )

  it('makes what other programs read, and repair a torn header by', async () => {
    const { disk, after } = await laidOut(512)
    const device = new FaultyDevice(disk)
    await changeTable(device, after, 0)
    const file = join(await temporaryDirectory(), 'disk.img')
    await writeFile(file, device.bytes)
    expect(await runTool('sfdisk', ['--verify', file])).toContain('No errors detected')
    expect(await runTool('sgdisk', ['-v', file])).toContain('No problems found')
    const names = async (): Promise<string[]> => {
      const { partitiontable: table } = JSON.parse(await runTool('sfdisk', ['--json', file])) as {
        partitiontable: { partitions: { name: string }[] }
      }
      return table.partitions.map(({ name }) => name)
    }
    expect(await names()).toEqual(['lab-esp', 'lab-state', 'root', 'home', 'lab-bios'])
    device.bytes.fill(0xa5, 600, 700)
    device.bytes.fill(0, 512, 600)
    await writeFile(file, device.bytes)
    expect(await names()).toEqual(['lab-esp', 'lab-state', 'root', 'home', 'lab-bios'])
  })
})

/** The first and the last MiB, where alone a table is. */
function tableOf(disk: Buffer): Buffer {
  return Buffer.concat([disk.subarray(0, MIB), disk.subarray(disk.byteLength - MIB)])
}

function restored(table: Buffer, disk: Buffer): Buffer {
  const whole = Buffer.from(disk)
  table.copy(whole, 0, 0, MIB)
  table.copy(whole, whole.byteLength - MIB, MIB)
  return whole
}
