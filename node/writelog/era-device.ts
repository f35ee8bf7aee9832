import { realpath } from 'node:fs/promises'
import { release } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { byteOffset } from '../../protocol/units.ts'
import { openDevice } from '../disk/file-device.ts'
import { KernelDisks } from '../disk/kernel-disks.ts'
import { lockDirectory } from '../state/directory-lock.ts'
import { ERA_BLOCK_BYTES, ERA_LOCK_PAUSE_MS, ERA_LOCK_TRIES } from './limits.ts'
import { RunningEra } from './running-era.ts'
import { type RunTool, runSystemTool } from './system-tool.ts'

const SECTOR_BYTES = 512
const SUPERBLOCK_BYTES = 4096
/** The unit of dm-era in sectors of 512 bytes, as its table wants it: 128. */
export const ERA_BLOCK_SECTORS = ERA_BLOCK_BYTES / SECTOR_BYTES
/**
 * Older kernels lost the writes of the era in which a machine crashed ("dm era: Recover committed writeset after
 * crash").
 */
const FIRST_KERNEL = [5, 12] as const

/** What an era device is made of. */
export interface EraPlace {
  /** `/dev/mapper/NAME`. */
  readonly name: string
  /** A block device or a file. */
  readonly metadata: string
  /** A block device. */
  readonly disk: string
}

/** What an era device needs of the system; tests script it. */
export interface EraSystem {
  readonly run: RunTool
  readonly disks: KernelDisks
  /** As `uname -r`. */
  readonly kernel: string
  /** Directory for locks, which must be empty after a boot. */
  readonly runDir: string
}

/** The system that this process runs on. */
export const ERA_SYSTEM: EraSystem = {
  run: runSystemTool,
  disks: new KernelDisks(),
  // Asked when it is needed: this module may have been loaded on another machine, where the agent was built.
  get kernel() {
    return release()
  },
  runDir: '/run',
}

/**
 * A dm-era device over a disk (Documentation/admin-guide/device-mapper/era.rst), driven by programs of Debian. Errors:
 * ERA_FAILED with the reason, TOOL_MISSING, those of opening a disk.
 * The kernel counts eras upwards. A new era begins with each activation, `checkpoint` and snapshot. A write waits until
 * its unit is durable in the set of the current era. The kernel merges the sets of past eras, in the background, into
 * one number for each unit: the last era in which it was written. So the writes since era N are the units that some set
 * or number from N on names. era_invalidate does not look at the set of the era that still runs. After a crash the
 * metadata must first be activated, which ends that era.
 */
export class EraDevice {
  readonly place: EraPlace
  readonly #system: EraSystem

  constructor(place: EraPlace, system: EraSystem = ERA_SYSTEM) {
    this.place = place
    this.#system = system
  }

  async isActive(): Promise<boolean> {
    return (await this.#system.disks.mapped(this.place.name)) !== undefined
  }

  /** Number of the disk, such as `254:16`. The disk must be a block device. */
  async disk(): Promise<string> {
    const number = await this.#system.disks.numberOf(this.place.disk)
    if (number === undefined)
      throw new MeshError('DISK_NOT_A_DISK', `${this.place.disk} is a file; dm-era works on a block device`)
    return number
  }

  async sectors(): Promise<number> {
    return this.#system.disks.sectorsOf(await this.disk())
  }

  /** Errors: ERA_FAILED if an active device is not an era device over this disk with these metadata, or does not run. */
  async assertOurs(): Promise<void> {
    const { disks, run } = this.#system
    const { name, disk, metadata } = this.place
    const mapped = await disks.mapped(name)
    if (mapped === undefined) throw new MeshError('ERA_FAILED', `there is no device ${name}`)
    // A question to a suspended era device would wait for ever.
    if (mapped.suspended) throw new MeshError('ERA_FAILED', `the device ${name} is suspended`)
    const table = (await run('dmsetup', ['table', name])).trim()
    const [, sectors, meta = '', origin, block] = /^0 (\d+) era (\d+:\d+) (\d+:\d+) (\d+)$/.exec(table) ?? []
    if (sectors === undefined) throw new MeshError('ERA_FAILED', `the device ${name} is no era device: ${table}`)
    if (origin !== (await this.disk())) throw new MeshError('ERA_FAILED', `the device ${name} is not over ${disk}`)
    if (Number(sectors) !== (await this.sectors()))
      throw new MeshError(
        'ERA_FAILED',
        `${disk} has ${await this.sectors()} sectors, the device ${name} has ${sectors}`,
      )
    if (Number(block) !== ERA_BLOCK_SECTORS)
      throw new MeshError('ERA_FAILED', `the device ${name} has blocks of ${block} sectors, not ${ERA_BLOCK_SECTORS}`)
    if (!(await this.#isMetadata(meta)))
      throw new MeshError('ERA_FAILED', `the device ${name} keeps its metadata elsewhere than ${metadata}`)
  }

  /** Whether the device refuses discards. It must refuse all, because dm-era notes only the first unit of a discard. */
  async refusesDiscards(): Promise<boolean> {
    const mapped = await this.#system.disks.mapped(this.place.name)
    return mapped !== undefined && (await this.#system.disks.discardMax(mapped.number)) === 0
  }

  async #assertRefusesDiscards(): Promise<void> {
    if (!(await this.refusesDiscards()))
      throw new MeshError(
        'ERA_FAILED',
        `the device ${this.place.name} lets discards through, which dm-era does not log`,
      )
  }

  async refuseDiscards(): Promise<void> {
    const mapped = await this.#system.disks.mapped(this.place.name)
    if (mapped !== undefined) await this.#system.disks.setDiscardMax(mapped.number, 0)
  }

  /**
   * Makes the device. A mapped device inherits from its disk whether it accepts discards. So the disk refuses discards
   * while the device is made, and there is no moment at which a discard could get through.
   */
  async activate(): Promise<RunningEra> {
    this.#assertKernel()
    await using stack = new AsyncDisposableStack()
    stack.adopt(await this.#lock(), (release) => release())
    const { disks } = this.#system
    const [disk, sectors] = [await this.disk(), await this.sectors()]
    const metadata = await this.#attachMetadata()
    const before = await disks.discardMax(disk)
    await disks.setDiscardMax(disk, 0)
    try {
      await this.#create(this.place.name, `0 ${sectors} era ${metadata.number} ${disk} ${ERA_BLOCK_SECTORS}`)
      await this.refuseDiscards()
    } catch (error) {
      await metadata.detach()
      throw error
    } finally {
      await disks.setDiscardMax(disk, before)
    }
    await this.#assertRefusesDiscards()
    return this.#running(this.place.name, metadata.isFile)
  }

  async deactivate(): Promise<void> {
    const metadata = await this.#activeMetadata(this.place.name)
    await this.#remove(this.place.name)
    if (metadata !== this.place.metadata) await this.#system.run('losetup', ['--detach', metadata])
  }

  /**
   * Calls `work` with the running device. If no device runs (a restore comes before it), the metadata are activated for
   * the moment over a device that accepts no reads or writes. So the disk is not touched, and stays free if this
   * process is killed.
   */
  async look<T>(work: (era: RunningEra) => Promise<T>): Promise<T> {
    this.#assertKernel()
    await using stack = new AsyncDisposableStack()
    stack.adopt(await this.#lock(), (release) => release())
    const { name } = this.place
    if (await this.isActive()) {
      await this.assertOurs()
      await this.#assertRefusesDiscards()
      const isFile = (await this.#system.disks.numberOf(this.place.metadata)) === undefined
      return work(this.#running(name, isFile))
    }
    const sectors = await this.sectors()
    const metadata = await this.#attachMetadata()
    try {
      await this.#create(this.#nothing, `0 ${sectors} error`)
      const nothing = await this.#system.disks.mapped(this.#nothing)
      await this.#create(this.#reader, `0 ${sectors} era ${metadata.number} ${nothing?.number} ${ERA_BLOCK_SECTORS}`)
      return await work(this.#running(this.#reader, metadata.isFile))
    } finally {
      await this.#removeReader()
      await metadata.detach()
    }
  }

  #running(name: string, isFile: boolean): RunningEra {
    return new RunningEra(name, { path: this.place.metadata, isFile }, this.#system.run)
  }

  /**
   * One process looks at a time, because there is only one snapshot and one reader. A look takes a moment, so the
   * others wait.
   */
  async #lock(): Promise<() => Promise<void>> {
    const directory = join(this.#system.runDir, `lab-mesh-era-${this.place.name}`)
    for (let tries = 1; ; tries++) {
      try {
        return await lockDirectory(directory, `dm-era device ${this.place.name}`)
      } catch (error) {
        if (!isMeshError(error, 'STATE_IN_USE') || tries === ERA_LOCK_TRIES) throw error
        await sleep(ERA_LOCK_PAUSE_MS)
      }
    }
  }

  get #reader(): string {
    return `${this.place.name}-log`
  }

  get #nothing(): string {
    return `${this.place.name}-nothing`
  }

  #assertKernel(): void {
    const { kernel } = this.#system
    const [major = 0, minor = 0] = kernel.split('.').map(Number)
    if (major < FIRST_KERNEL[0] || (major === FIRST_KERNEL[0] && minor < FIRST_KERNEL[1]))
      throw new MeshError('ERA_FAILED', `dm-era of Linux ${kernel} loses writes when the machine crashes`)
  }

  /**
   * Makes the metadata a block device that nothing else uses. The kernel itself would let two era devices write to the
   * same metadata.
   */
  async #attachMetadata(): Promise<{ number: string; isFile: boolean; detach: () => Promise<void> }> {
    const { run, disks } = this.#system
    const { metadata } = this.place
    await this.#removeReader()
    await assertNotBlank(metadata)
    let number = await disks.numberOf(metadata)
    const isFile = number === undefined
    let detach = async (): Promise<unknown> => undefined
    if (number === undefined) {
      const node = (await run('losetup', ['--find', '--show', '--nooverlap', metadata])).trim()
      detach = () => run('losetup', ['--detach', node])
      number = await disks.numberOf(node)
      if (number === undefined) throw new MeshError('ERA_FAILED', `${node} is no loop device`)
    }
    const holders = await disks.holdersOf(number)
    if (holders.length > 0) throw new MeshError('ERA_FAILED', `${metadata} is in use by ${holders.join(', ')}`)
    return { number, isFile, detach: async () => void (await detach()) }
  }

  async #isMetadata(number: string): Promise<boolean> {
    const { disks } = this.#system
    const own = await disks.numberOf(this.place.metadata)
    if (own !== undefined) return own === number
    const file = await disks.backingFile(number)
    return file !== undefined && file === (await realpath(this.place.metadata))
  }

  async #activeMetadata(name: string): Promise<string> {
    const table = await this.#system.run('dmsetup', ['table', name])
    return this.#system.disks.nodeOf(table.split(' ')[3] ?? '')
  }

  async #create(name: string, table: string): Promise<void> {
    await this.#system.run('dmsetup', ['create', name, '--table', table])
  }

  async #remove(...names: string[]): Promise<void> {
    await this.#system.run('dmsetup', ['remove', '--retry', ...names])
  }

  /** Removes the reader, also one that a killed process left. */
  async #removeReader(): Promise<void> {
    const there: string[] = []
    for (const name of [this.#reader, this.#nothing])
      if ((await this.#system.disks.mapped(name)) !== undefined) there.push(name)
    // The reader stands on the other, and goes first.
    if (there.length > 0) await this.#remove(...there)
  }
}

/** Refuses metadata that begin with zeros: the kernel would make new metadata there without asking. */
async function assertNotBlank(path: string): Promise<void> {
  const device = await openDevice(path, { writable: false })
  try {
    const start = Buffer.alloc(Math.min(SUPERBLOCK_BYTES, device.size))
    await device.read(byteOffset(0), start)
    if (start.every((byte) => byte === 0)) throw new MeshError('ERA_FAILED', `${path} holds no metadata`)
  } finally {
    await device.close()
  }
}
