import { crc32 } from 'node:zlib'
import type { BlockDevice } from '../../node/disk/block-device.ts'
import type { DiskFacts } from '../../node/disk/disk-facts.ts'
import { markOf } from '../../node/disk/disk-mark.ts'
import { DurableBitmap, type DurableBitmapOptions, logFileSize } from '../../node/writelog/durable-bitmap.ts'
import type { LogState } from '../../node/writelog/write-log.ts'
import { byteCount } from '../../protocol/units.ts'
import { Random } from '../lab/random.ts'
import { differing, judge } from './judge.ts'
import { MemoryHashPool } from './memory-hash-pool.ts'
import type { Model, Release } from './model.ts'
import { Power } from './power.ts'
import { PowerCutDevice } from './power-cut-device.ts'
import { restoreOnce } from './restore-once.ts'
import { session } from './session.ts'
import { TracedLog } from './traced-log.ts'

/** The parts of a machine. The self-test puts in parts that break a rule. */
export interface Parts {
  readonly disk: (device: BlockDevice) => BlockDevice
  readonly storage: (device: BlockDevice) => BlockDevice
  readonly log: (options: DurableBitmapOptions) => DurableBitmap
}

/** A machine that keeps every rule. */
export const HONEST_PARTS: Parts = {
  disk: (device) => device,
  storage: (device) => device,
  log: (options) => new DurableBitmap(options),
}

/**
 * When the power goes off: after so many operations of the disks, sooner in the activity `aim`, and at the end at the
 * latest.
 */
export interface Cut {
  readonly operations: number
  readonly aim?: string
}

/** The record of a run. */
export interface MachineRecord {
  /** What the cuts hit, what the log said after each cut, and the checksum of the disk. */
  readonly cuts: string[]
  readonly states: LogState['state'][]
  readonly disks: number[]
  /** Empty if all is well. */
  readonly faults: string[]
}

/**
 * A machine whose disk and log are in memory. Each time that it runs its power is cut, at the end if not before, and
 * the disk and the log that are left are judged.
 */
export class SimulatedMachine {
  readonly record: MachineRecord = { cuts: [], states: [], disks: [], faults: [] }
  readonly #model: Model
  readonly #unitSize: number
  readonly #random: Random
  readonly #parts: Parts
  readonly #facts: DiskFacts
  /** The content of disk and log while the power is off. */
  #disk: Buffer
  #log: Buffer
  #logIsNew = true

  constructor(model: Model, unitSize: number, disk: Buffer, random: Random, parts: Parts) {
    this.#model = model
    this.#unitSize = unitSize
    this.#random = random
    this.#parts = parts
    this.#disk = disk
    this.#log = Buffer.alloc(logFileSize(model.diskSize, unitSize))
    const stamp = async (): Promise<string> => 'boot.1'
    // As for a disk after a reboot, nobody can tell whether something else wrote to it.
    const mark = markOf({ kind: 'disk', size: model.diskSize, facts: { serial: 'a1' } })
    this.#facts = { mark, size: byteCount(model.diskSize), stamp, since: async () => ({ agreed: [] }) }
  }

  async session(cut: Cut, shutDown: boolean): Promise<void> {
    await this.#run('session', cut, async (device, storage, power) => {
      const log = await this.#openLog(storage, power)
      const enter = (activity: string): void => {
        power.activity = activity
      }
      await session({ device, log, random: this.#random, longest: this.#model.blockSize * 3, shutDown, enter })
    })
  }

  /** Makes a restore from peers that have only `blocksToFetch` blocks. Returns whether it came to its end. */
  async restore(release: Release, cut: Cut, blocksToFetch: number): Promise<boolean> {
    let verified = false
    await this.#run('restore', cut, async (device, storage, power) => {
      const receipt = await restoreOnce({
        device,
        log: new TracedLog(await this.#openLog(storage, power, release), power),
        model: this.#model,
        release,
        pool: new MemoryHashPool(device),
        blocksToFetch,
        random: () => this.#random.next(),
        onLogMiss: (block) => this.record.faults.push(`the restore found that the log had missed block ${block}`),
      })
      verified = receipt?.verified === true
    })
    if (verified) {
      const wrong = differing(this.#disk, release.image, this.#model.blockSize)
      if (wrong.length > 0) this.record.faults.push(`blocks ${wrong.join(', ')} are wrong after a verified restore`)
    }
    return verified
  }

  async #run(
    activity: string,
    cut: Cut,
    work: (device: BlockDevice, storage: BlockDevice, power: Power, onPlatters: () => Buffer) => Promise<void>,
  ): Promise<void> {
    const power = new Power(this.#random, cut.operations, cut.aim)
    power.activity = activity
    const disk = new PowerCutDevice('disk', this.#disk, power)
    const log = new PowerCutDevice('log', this.#log, power)
    try {
      await work(this.#parts.disk(disk), this.#parts.storage(log), power, () => disk.durable)
    } catch (error) {
      if (!power.off) throw error
    }
    power.cut('over')
    this.record.cuts.push(power.cutDuring!)
    this.#disk = disk.afterCut(this.#random, { torn: true })
    this.#log = log.afterCut(this.#random, { torn: true })
    await this.#judge(activity)
  }

  async #openLog(storage: BlockDevice, power: Power, release?: Release): Promise<DurableBitmap> {
    const log = this.#parts.log({
      storage,
      disk: this.#facts,
      source: 'nbd',
      unitSize: this.#unitSize,
      ...(release === undefined ? {} : { release: release.manifest }),
    })
    if (!this.#logIsNew) return log
    const { activity } = power
    power.activity = `${activity}, format`
    await log.format()
    power.activity = activity
    this.#logIsNew = false
    return log
  }

  async #judge(activity: string): Promise<void> {
    const storage = new PowerCutDevice(
      'log',
      Buffer.from(this.#log),
      new Power(new Random(0), Number.POSITIVE_INFINITY),
    )
    const { state, fault } = await judge(this.#disk, storage, this.#facts, this.#unitSize, this.#model)
    this.record.states.push(state)
    this.record.disks.push(crc32(this.#disk))
    if (fault !== undefined)
      this.record.faults.push(`after ${activity} (cut during ${this.record.cuts.at(-1)}): ${fault}`)
  }
}
