import type { DiskFacts } from '../../node/disk/disk-facts.ts'
import { markOf } from '../../node/disk/disk-mark.ts'
import { byteCount } from '../../protocol/units.ts'

/** Facts of a disk that does not exist: its serial number, and a stamp that the test may change. */
export function imaginedDisk(
  size: number,
  serial = 'a1',
): DiskFacts & { written: string; perBoot: boolean; size: ReturnType<typeof byteCount> } {
  const disk = {
    mark: markOf({ kind: 'disk', size, facts: { serial } }),
    size: byteCount(size),
    written: 'boot.1',
    perBoot: false,
    stamp: async () => disk.written,
    since: async (stamp: string) => {
      if (disk.perBoot) return { agreed: [] }
      return stamp === disk.written
        ? { agreed: ['file times' as const] }
        : { changed: 'file times' as const, agreed: [] }
    },
  }
  return disk
}
