import type { BlockDevice } from '../../node/disk/block-device.ts'
import type { DurableBitmap } from '../../node/writelog/durable-bitmap.ts'
import { LoggedDisk } from '../../node/writelog/logged-disk.ts'
import type { Random } from '../lab/random.ts'

interface SessionOptions {
  readonly device: BlockDevice
  /** The log; it is not opened yet. */
  readonly log: DurableBitmap
  readonly random: Random
  /** Longest single write, in bytes. */
  readonly longest: number
  /**
   * Whether the session ends as a monitor does: it flushes the disk and closes the log. Otherwise the log stays open.
   */
  readonly shutDown: boolean
  /** Called with the name of what comes next. */
  readonly enter: (activity: string) => void
}

const MOST_WRITERS = 4
const MOST_STEPS = 12
const HOT_BYTES = 4096

/**
 * Does what a monitor does while the machine is used: several clients at a time write, zero, trim and flush through it.
 */
export async function session(options: SessionOptions): Promise<void> {
  const { device, log, random, longest, shutDown, enter } = options
  enter('session, open')
  await log.open()
  enter('session')
  const disk = new LoggedDisk({ name: 'disk', device, log, readOnly: false })
  // Several clients write this place at once when it is not marked yet.
  const hot = random.below(disk.size - HOT_BYTES)
  const writers = Array.from({ length: 1 + random.below(MOST_WRITERS) }, async () => {
    for (let steps = random.below(MOST_STEPS); steps > 0; steps--) await step(disk, random, longest, hot)
  })
  const failure = (await Promise.allSettled(writers)).find((writer) => writer.status === 'rejected')
  if (failure !== undefined) throw failure.reason
  if (!shutDown) return
  enter('session, close')
  await device.flush()
  await log.close()
}

async function step(disk: LoggedDisk, random: Random, longest: number, hot: number): Promise<void> {
  // Most writes are short, and half of the writes are whole sectors.
  const most = random.below(4) === 0 ? longest : 6000
  const unit = random.below(2) === 0 ? 512 : 1
  const place = random.below(3) === 0 ? hot + random.below(HOT_BYTES) : random.below(disk.size)
  const offset = Math.floor(Math.min(place, disk.size - most - unit) / unit) * unit
  const length = Math.ceil((1 + random.below(most)) / unit) * unit
  switch (random.below(8)) {
    case 0:
      return disk.writeZeroes(offset, length)
    case 1:
      return disk.trim(offset, length)
    case 2:
      return disk.flush()
    case 3: {
      // The server announces a long write as a whole and passes it on in parts.
      disk.announceWrite(offset, length)
      const [first, second] = [Math.ceil(length / 2), Math.floor(length / 2)]
      const parts = [disk.write(offset, content(first, random))]
      if (second > 0) parts.push(disk.write(offset + first, content(second, random)))
      await Promise.all(parts)
      return
    }
    default:
      return disk.write(offset, content(length, random))
  }
}

function content(length: number, random: Random): Buffer {
  return Buffer.alloc(length, Buffer.from(random.bytes(8)))
}
