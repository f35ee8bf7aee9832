import { byteOffset } from '../../protocol/units.ts'
import type { BlockDevice } from './block-device.ts'
import { gptTable } from './gpt-table.ts'
import type { DiskPlan } from './plan-disk.ts'

/**
 * Changes the table of a disk whose entries stand at `place`. Until the header is written, which is one sector, the disk has the table of before,
 * whose entries stay where they are. The backup is the new table by then, so that firmware which finds the header torn makes the new one of it.
 * Durable when it resolves. Errors: DISK_IO.
 */
export async function changeTable(device: BlockDevice, plan: DiskPlan, place: 0 | 1): Promise<void> {
  const table = gptTable(plan, place === 0 ? 1 : 0)
  await device.write(byteOffset(table.entriesAt), table.entries)
  await device.write(byteOffset(table.backupAt), table.backup)
  await device.flush()
  await device.write(byteOffset(plan.sectorBytes), table.header)
  await device.flush()
}
