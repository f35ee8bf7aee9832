import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import type { ByteCount } from '../../protocol/units.ts'
import type { BlockDevice } from './block-device.ts'
import { deviceNumber } from './device-number.ts'

/** The facts by which a write log recognises its disk. */
export interface DiskFacts {
  /** Hexadecimal digest of what the disk is, whatever its path. It stays the same over reboots. */
  readonly identity: string
  readonly size: ByteCount
  /**
   * A sign of changes that costs no reading of the disk: the time of change of a file, or the sectors written to a
   * device since boot.
   */
  stamp(): Promise<string>
  /**
   * Whether the disk was written since `stamp` was taken; undefined if nobody can tell, as for a device after a reboot.
   */
  changedSince(stamp: string): Promise<boolean | undefined>
}

/** Facts of an open disk. Errors: those of the file system. */
export async function diskFacts(device: BlockDevice): Promise<DiskFacts> {
  const identity = digest(await identityOf(device.path))
  return {
    identity,
    size: device.size,
    stamp: async () => (await stampOf(device.path)).text,
    changedSince: async (stamp) => {
      const now = await stampOf(device.path)
      if (stamp.split('.')[0] !== now.text.split('.')[0]) return now.perBoot ? undefined : true
      return stamp !== now.text
    },
  }
}

/** A file is recognised by its inode, a disk or a partition by the name that udev gives it on every boot. */
async function identityOf(path: string): Promise<string> {
  const facts = await stat(path, { bigint: true })
  if (facts.isFile()) return `file ${facts.ino}`
  const number = deviceNumber(Number(facts.rdev))
  const udev = await readFile(`/run/udev/data/b${number}`, 'utf8').catch(() => '')
  const known = ['ID_PART_ENTRY_UUID', 'ID_SERIAL', 'DM_UUID', 'ID_FS_UUID_SUB'].flatMap((key) => {
    const value = new RegExp(`^E:${key}=(.+)$`, 'm').exec(udev)?.[1]
    return value === undefined ? [] : [`${key} ${value}`]
  })
  return known[0] ?? `device ${path}`
}

/** Makes `SCOPE.VALUE`. Stamps of different scopes say nothing about each other. */
async function stampOf(path: string): Promise<{ text: string; perBoot: boolean }> {
  const facts = await stat(path, { bigint: true })
  if (facts.isFile()) return { text: `${digest(String(facts.ino))}.${digest(`${facts.mtimeNs}`)}`, perBoot: false }
  const [boot, counters] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
    readFile(`/sys/dev/block/${deviceNumber(Number(facts.rdev))}/stat`, 'utf8'),
  ])
  // https://www.kernel.org/doc/Documentation/block/stat.rst: sectors written are the 7th field, discarded the 14th.
  const fields = counters.trim().split(/\s+/)
  return { text: `${digest(boot)}.${digest(`${fields[6]} ${fields[13]}`)}`, perBoot: true }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 24)
}
