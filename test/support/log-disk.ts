import type { DiskFacts } from '../../node/disk/disk-identity.ts'
import { byteCount } from '../../protocol/units.ts'

/** Facts of a disk that does not exist: its identity, and a stamp that the test may change. */
export function imaginedDisk(
  size: number,
  identity = 'a1',
): DiskFacts & { written: string; perBoot: boolean; size: ReturnType<typeof byteCount> } {
  const disk = {
    identity,
    size: byteCount(size),
    written: 'boot.1',
    perBoot: false,
    stamp: async () => disk.written,
    changedSince: async (stamp: string) => (disk.perBoot ? undefined : stamp !== disk.written),
  }
  return disk
}
