import { access } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  BIOS_CODE_BYTES,
  BIOS_LABEL,
  ESP_LABEL,
  LAYOUT_UNIT_BYTES,
  STATE_LABEL,
} from '../../../protocol/disk-layout.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { byteOffset } from '../../../protocol/units.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import { assertUnused } from '../../disk/disk-use.ts'
import { openDevice } from '../../disk/file-device.ts'
import { gptTable } from '../../disk/gpt-table.ts'
import { LAYING_MARK } from '../../disk/laying-mark.ts'
import type { DiskPlan, PlannedPartition } from '../../disk/plan-disk.ts'
import { runBootTool } from './boot-tool.ts'
import { PARTITIONS_TICK_MS, PARTITIONS_WAIT_MS } from './limits.ts'

/** What a BIOS starts from a disk, in two parts that know of each other’s place. */
export interface BiosLoader {
  /** Program of the first sector: at most 440 bytes. */
  readonly code: Uint8Array
  /** What that program loads: the beginning of the partition for it. */
  readonly core: Uint8Array
}

/**
 * Lays out a disk: destroys what it holds, makes the file systems of ESP and state, puts the folder `stateDir` into the state and the `loader` where a
 * BIOS finds it, and makes the partition table. The first sector decides. It says that the disk is being laid out, until all else is durable; then one
 * write of that sector makes the disk complete. A power cut before it leaves a disk that counts as blank. Errors: LAYOUT_FAILED, DISK_IN_USE,
 * DISK_MOUNTED, and those of the disk.
 */
export async function layOutDisk(
  path: string,
  plan: DiskPlan,
  { stateDir, loader }: { readonly stateDir: string; readonly loader: BiosLoader },
): Promise<void> {
  const { partitions, sectorBytes } = plan
  const bios = partitions.find(({ label }) => label === BIOS_LABEL)
  const table = gptTable(plan)
  if (bios !== undefined) table.protectiveMbr.set(loader.code.subarray(0, BIOS_CODE_BYTES))
  await assertUnused(path, { to: 'write', force: false })
  await onDevice(path, async (device) => {
    await device.write(byteOffset(0), padded(LAYING_MARK, sectorBytes))
    await device.flush()
    // Nothing of an older table stays, be it made for sectors of another size.
    await device.write(byteOffset(sectorBytes), Buffer.alloc(LAYOUT_UNIT_BYTES - sectorBytes))
    await device.write(byteOffset(plan.size - LAYOUT_UNIT_BYTES), Buffer.alloc(LAYOUT_UNIT_BYTES))
    await device.flush()
  })
  await blank(path, partitions)
  await asDevice(path, partitionOf(partitions, ESP_LABEL), sectorBytes, async (esp) => {
    await runBootTool('mkfs.vfat', ['-n', ESP_LABEL.toUpperCase(), esp], 'LAYOUT_FAILED')
  })
  await asDevice(path, partitionOf(partitions, STATE_LABEL), sectorBytes, async (state) => {
    const options = ['-q', '-F', '-t', 'ext4', '-b', '4096', '-m', '0', '-L', STATE_LABEL, '-E', 'nodiscard']
    await runBootTool('mke2fs', [...options, '-d', stateDir, state], 'LAYOUT_FAILED')
  })
  await onDevice(path, async (device) => {
    if (bios !== undefined) await device.write(byteOffset(bios.offset), padded(loader.core, sectorBytes))
    await device.write(byteOffset(table.backupAt), table.backup)
    await device.write(byteOffset(table.entriesAt), table.entries)
    await device.write(byteOffset(sectorBytes), table.header)
    await device.flush()
    await device.write(byteOffset(0), table.protectiveMbr)
    await device.flush()
  })
}

/** So that nobody takes what a partition held before for its file system. A restore writes to those of images. */
async function blank(path: string, partitions: readonly PlannedPartition[]): Promise<void> {
  await onDevice(path, async (device) => {
    // That of the loader is within the first unit.
    for (const { offset, size } of partitions.filter(({ label }) => label !== BIOS_LABEL))
      for (const at of [offset, offset + size - LAYOUT_UNIT_BYTES])
        await device.write(byteOffset(at), Buffer.alloc(LAYOUT_UNIT_BYTES))
    await device.flush()
  })
}

/** Lets the kernel read the table of a disk, and waits for its partitions. Errors: LAYOUT_FAILED. */
export async function showPartitions(path: string, plan: DiskPlan): Promise<void> {
  await runBootTool('blockdev', ['--rereadpt', path], 'LAYOUT_FAILED')
  const until = performance.now() + PARTITIONS_WAIT_MS
  for (const { number } of plan.partitions) {
    const node = partitionNode(path, number)
    while (!(await exists(node))) {
      if (performance.now() >= until)
        throw new MeshError('LAYOUT_FAILED', `${path} was laid out, but the kernel does not show ${node}`)
      await sleep(PARTITIONS_TICK_MS)
    }
  }
}

/** `/dev/sda3`, `/dev/nvme0n1p3`: what the kernel calls a partition. */
export function partitionNode(disk: string, number: number): string {
  return /\d$/.test(disk) ? `${disk}p${number}` : `${disk}${number}`
}

/** The partition of a plan with this label. */
function partitionOf(partitions: readonly PlannedPartition[], label: string): PlannedPartition {
  const found = partitions.find((one) => one.label === label)
  if (found === undefined) throw new Error(`a plan has no ${label}`)
  return found
}

async function onDevice(path: string, work: (device: BlockDevice) => Promise<void>): Promise<void> {
  const device = await openDevice(path, { writable: true })
  try {
    await work(device)
  } finally {
    await device.close()
  }
}

/** Works with a part of a disk that no table names yet, as a device of its own. */
async function asDevice(
  path: string,
  { offset, size }: PlannedPartition,
  sectorBytes: number,
  work: (device: string) => Promise<void>,
): Promise<void> {
  const place = ['--offset', String(offset), '--sizelimit', String(size), '--sector-size', String(sectorBytes)]
  const device = await runBootTool('losetup', ['--find', '--show', ...place, path], 'LAYOUT_FAILED')
  try {
    await work(device)
    await runBootTool('blockdev', ['--flushbufs', device], 'LAYOUT_FAILED')
  } finally {
    await runBootTool('losetup', ['--detach', device], 'LAYOUT_FAILED')
  }
}

/** Whole sectors. */
function padded(bytes: Uint8Array, sectorBytes: number): Buffer {
  const sectors = Buffer.alloc(Math.ceil(bytes.byteLength / sectorBytes) * sectorBytes)
  sectors.set(bytes)
  return sectors
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
