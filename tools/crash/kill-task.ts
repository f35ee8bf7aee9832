import { join } from 'node:path'
import { diskFacts } from '../../node/disk/disk-facts.ts'
import { openDevice } from '../../node/disk/file-device.ts'
import { HashPool } from '../../node/disk/hash-pool.ts'
import { DurableBitmap, logFileSize } from '../../node/writelog/durable-bitmap.ts'
import { openLogStorage } from '../../node/writelog/log-storage.ts'
import { anyText, type Check, natural, nullable, object, optional } from '../../protocol/json-shape.ts'
import { Random } from '../lab/random.ts'
import { Deadline, KillingDevice } from './killing-device.ts'
import { openModel } from './model.ts'
import { restoreOnce } from './restore-once.ts'
import { session } from './session.ts'
import { TracedLog } from './traced-log.ts'

/** The task of a process that kills itself. */
export interface KillTask {
  /** Directory with the files `disk` and `log`. */
  readonly directory: string
  readonly seed: number
  /** Operations on disk and log after which the process dies; null lets it finish. */
  readonly operations: number | null
  readonly unitSize: number
  /** Undefined for a session; else the release to restore, 0 or 1. */
  readonly release?: number
  readonly blocksToFetch: number | null
}

/** The argument of a process that may kill itself must be this. */
export const isKillTask: Check<KillTask> = object({
  directory: anyText(4096),
  seed: natural(),
  operations: nullable(natural()),
  unitSize: natural(),
  release: optional(natural(1)),
  blocksToFetch: nullable(natural()),
})

/** Makes one session or restore on real files. True if it was a restore and came to its end. */
export async function runKillTask(task: KillTask): Promise<boolean> {
  const { directory, unitSize } = task
  const random = new Random(task.seed)
  const deadline = new Deadline(random, task.operations ?? Number.POSITIVE_INFINITY)
  const model = await openModel(directory, 'small')
  const file = await openDevice(join(directory, 'disk'), { writable: true })
  const disk = await diskFacts(file)
  const place = await openLogStorage(join(directory, 'log'), logFileSize(file.size, unitSize))
  const device = new KillingDevice('disk', file, deadline)
  const storage = new KillingDevice('log', place.storage, deadline)
  const options = { storage, disk, source: 'nbd', unitSize } as const
  if (place.made !== undefined) {
    deadline.activity = 'format'
    await new DurableBitmap(options).format(place.made)
  }
  if (task.release === undefined) {
    const enter = (activity: string): void => {
      deadline.activity = activity
    }
    const log = new DurableBitmap(options)
    await session({ device, log, random, longest: model.blockSize * 3, shutDown: random.below(2) === 0, enter })
    await Promise.all([device.close(), storage.close()])
    return false
  }
  deadline.activity = 'restore'
  const release = model.releases[task.release]!
  const log = new DurableBitmap({ ...options, release: release.manifest })
  const pool = new HashPool({ workers: 1 })
  const receipt = await restoreOnce({
    device,
    log: new TracedLog(log, deadline),
    model,
    release,
    pool,
    blocksToFetch: task.blocksToFetch ?? Number.POSITIVE_INFINITY,
    random: () => random.next(),
    onLogMiss: (block) => {
      throw new Error(`the log had missed block ${block}`)
    },
  })
  await Promise.all([pool.close(), device.close(), storage.close()])
  return receipt?.verified === true
}
