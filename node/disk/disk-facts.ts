import { stat } from 'node:fs/promises'
import type { ByteCount } from '../../protocol/units.ts'
import type { BlockDevice } from './block-device.ts'
import { deviceNumber } from './device-number.ts'
import { attachmentOf, markOf } from './disk-mark.ts'
import { compareStamps, stampOf, type Testimony } from './disk-witness.ts'
import { readDisk } from './read-disk.ts'

/** What a write log knows a disk by, and what tells it that the disk was written behind its back. */
export interface DiskFacts {
  /** What the disk is, whatever its path, as {@link markOf} writes it. */
  readonly mark: string
  readonly size: ByteCount
  /** What the witnesses of writes show now. */
  stamp(): Promise<string>
  /** What they say of the time since they showed that. */
  since(stamp: string): Promise<Testimony>
}

/** Facts of an open disk. Errors: those of readDisk, and of the file system. */
export async function diskFacts({ path, size }: BlockDevice): Promise<DiskFacts> {
  const disk = await readDisk(path)
  const facts = await stat(path)
  const attached = facts.isBlockDevice()
    ? await attachmentOf(deviceNumber(facts.rdev), { sys: '/sys', proc: '/proc' })
    : undefined
  const stamp = (): Promise<string> => stampOf(path, disk.kind)
  return { mark: markOf(disk, attached), size, stamp, since: async (before) => compareStamps(before, await stamp()) }
}
