import { setTimeout as sleep } from 'node:timers/promises'
import { RangeSet } from '../../../protocol/ranges.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import { diskFacts } from '../../disk/disk-facts.ts'
import { markDoubt } from '../../disk/disk-mark.ts'
import { openDevice } from '../../disk/file-device.ts'
import { type LogContents, readLog } from '../../writelog/log-file.ts'
import { placeDoubt, placeOf } from '../../writelog/log-place.ts'
import { openStoredLog } from '../../writelog/log-storage.ts'
import type { LogSource } from '../../writelog/write-log.ts'
import { LOG_PEEK_PAUSE_MS, LOG_PEEK_TRIES } from './limits.ts'
import type { LogConfig } from './log-config.ts'
import { openTracker } from './open-log.ts'

/** What a write log says at this moment. */
export type LogPeek =
  | { readonly state: 'unknown'; readonly reason: string }
  | {
      readonly state: 'known'
      readonly source: LogSource
      readonly unitSize: number
      /** Units that may differ from the release. */
      readonly dirty: RangeSet
      /** Bytes of the disk. */
      readonly diskSize: number
      /** Root of the release's hash tree, hexadecimal. */
      readonly root: string
      readonly release: number
      /** When the last restore ended, milliseconds since 1970. */
      readonly since: number
      /** A monitor has it open, or did not close it. */
      readonly inUse: boolean
    }

/**
 * Looks at the log of a disk while a monitor may hold it and write to it. Nothing is changed and no lock is taken. Marks that were
 * durable before the call are seen. Errors: DISK_IO, DISK_MISSING and others of the storage and the disk.
 */
export async function peekLog(config: LogConfig, disk: string): Promise<LogPeek> {
  const [contents, tracker] = await Promise.all([
    readStored(config.storage),
    openTracker(config, disk, { running: true }),
  ])
  if (typeof contents === 'string') return { state: 'unknown', reason: contents }
  const { header, marked, doubt } = contents
  const reason =
    doubt !== '' ? doubt : (placeDoubt(header.place, await placeOf(config.storage)) ?? (await otherDisk(header, disk)))
  if (reason !== undefined) return { state: 'unknown', reason }
  let dirty = marked.toRanges()
  if (tracker !== undefined) {
    const changes = await tracker.changedSince(header.period)
    if (changes.state === 'unknown') return changes
    dirty = dirty.union(changes.units).intersect(RangeSet.of(0, marked.length))
  }
  const { unitSize, diskSize, root, release, since, inUse } = header
  return { state: 'known', source: config.source, unitSize, diskSize, dirty, root, release, since, inUse }
}

/** A monitor may be in the middle of a write, so that a sector seems damaged for a moment. */
async function readStored(where: string): Promise<LogContents | string> {
  const storage = await openStoredLog(where)
  try {
    for (let tries = 1; ; tries++) {
      const contents = await readLog(storage)
      if (typeof contents === 'string' || contents.damage === undefined || tries === LOG_PEEK_TRIES) return contents
      await sleep(LOG_PEEK_PAUSE_MS)
    }
  } finally {
    await storage.close()
  }
}

async function otherDisk(header: LogContents['header'], path: string): Promise<string | undefined> {
  const device: BlockDevice = await openDevice(path, { writable: false })
  try {
    const { mark, size } = await diskFacts(device)
    const other = markDoubt(header.disk, mark)
    if (other !== undefined) return other
    return header.diskSize === size ? undefined : `the disk has ${size} bytes, and had ${header.diskSize} before`
  } finally {
    await device.close()
  }
}
