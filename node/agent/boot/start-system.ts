/**
 * The room `boot`: a machine becomes the model again before its system starts, in one process.
 * `startSystem` goes from the restore over the write log to the mounted root. `startUnverified` leaves the restore out, where the lab
 * wants that, and says so durably first. `provision` comes before, on a machine whose disk is bare: it is let in, and its disk laid out.
 * `bootNext` leaves a system of another kind to the firmware. `agentNetwork` is the network, as far as there is no system that has one.
 */

import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { byteOffset } from '../../../protocol/units.ts'
import { openDevice } from '../../disk/file-device.ts'
import { fileSystemOf, MAGIC_BYTES, smallestPiece } from '../../disk/file-system-magic.ts'
import type { RestoreResult } from '../../restore/restore-result.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import type { TrustView } from '../../trust/trusted-view.ts'
import { readLogConfig } from '../log/log-config.ts'
import { recordLogDoubt } from '../log/log-doubt.ts'
import { monitorEra } from '../log/monitor-era.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { ownDisk, requireOwnDisk } from '../machine/own-disk.ts'
import { type MachineDisk, partDirectories } from '../machine/parts.ts'
import { rememberedMachine } from '../machine/remembered-machine.ts'
import { keepFailure } from '../receipts/own-receipts.ts'
import { restoreMachine } from '../restore/restore-machine.ts'
import { bootNext } from './boot-next.ts'
import { runBootTool } from './boot-tool.ts'
import type { BootEntry } from './firmware.ts'
import { DISK_TICK_MS, DISK_WAIT_MS } from './limits.ts'

/** File systems that a root of Linux can be on. */
const LINUX_ROOTS: ReadonlySet<string> = new Set(['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'f2fs', 'squashfs'])

/** Options of starting a machine’s system. */
export interface StartSystemOptions extends AgentOptions {
  /** The site that the agent was made for, as its id. */
  readonly siteId: string
  /** The kernel’s log stands at `/dev/mapper/NAME`. */
  readonly era: string
  /** Where the root is mounted. */
  readonly root: string
  /** The firmware’s entry of a system that the agent cannot start itself, such as Windows: path of its program, or label. */
  readonly entry?: string
  /** Where the firmware’s variables are, if not where Linux has them. */
  readonly variables?: string
  /** State directories of other systems on this computer. What a system that is not watched may write to is in doubt. */
  readonly others?: readonly string[]
  /** Other disks of this machine that are restored before the system’s own. */
  readonly before?: readonly MachineDisk[]
  /** Called before a disk is restored, with its image. */
  readonly about?: (image: string) => void
  /** Brings the network up; called only if something has to be fetched. */
  readonly bringUp: () => Promise<void>
  /** Called with what the site says, once a disk is restored; `stateDir`: of which one. */
  readonly trusted?: (view: TrustView, stateDir: string) => void
}

/** What is mounted, or what the firmware starts next, and what the restore did. */
export interface StartedSystem {
  readonly event: 'started'
  /** The device that the root is on; absent if nothing is mounted. */
  readonly device?: string
  /** The entry that the firmware starts, once, when the computer is restarted now. */
  readonly next?: BootEntry
  /** Absent if the disk was not restored. */
  readonly receipt?: RestoreResult
}

/**
 * Restores the disks, lets the kernel log what is written to it, and mounts its file system read-only. Errors: those of
 * {@link restoreMachine} and {@link monitorEra}; STATE_MISSING, STATE_OTHER_SITE, BOOT_NO_SYSTEM, BOOT_ENTRY_FAILED. After an error nothing is mounted.
 */
export async function startSystem(options: StartSystemOptions): Promise<StartedSystem> {
  await assertForThisSite(options)
  await restoreBefore(options)
  const { image } = (await rememberedMachine(options.stateDir)) ?? {}
  if (image !== undefined) options.about?.(image)
  const receipt = await whenDiskIsThere(() => restoreMachine({ ...options, force: false }))
  const next = await elsewhere(options)
  if (next !== undefined) return { event: 'started', next, receipt }
  await doubtLogs(options.others ?? [], options)
  const device = await logged(options)
  await mountRoot(device, options).catch(async (error: unknown) => {
    // Another attempt restores the disk again, and nothing may hold it then.
    await runBootTool('dmsetup', ['remove', '--retry', options.era]).catch(() => undefined)
    throw error
  })
  return { event: 'started', device, receipt }
}

/**
 * Starts the system on a disk that is not the model, because `why`. That is in the machine’s receipts before the root is mounted, and
 * without a log the next restore will scan. Errors: as {@link startSystem}; if the receipt cannot be kept nothing is mounted.
 */
export async function startUnverified(options: StartSystemOptions, why: unknown): Promise<StartedSystem> {
  await assertForThisSite(options)
  const reason = why instanceof Error ? why.message : String(why)
  const text = `the system was started although the agent failed: ${reason}`
  await withMachine(options, (machine) =>
    keepFailure(machine, { startedAt: Date.now(), ms: 0 }, new MeshError('BOOT_UNVERIFIED', text, { cause: why })),
  )
  const next = await elsewhere(options)
  if (next !== undefined) return { event: 'started', next }
  await doubtLogs(options.others ?? [], options)
  const device = await logged(options).catch(async (error: unknown) => {
    if (!isMeshError(error)) throw error
    options.report({ type: 'warning', text: `what is written is not logged: ${error.message}` })
    await withMachine(options, ({ state }) => recordLogDoubt(state, 'the system was started without the log'))
    return requireOwnDisk(await ownDisk(options.stateDir, options.configured), options.stateDir, options)
  })
  await mountRoot(device, options)
  return { event: 'started', device }
}

/**
 * If the disk holds a system that the agent cannot start, lets the firmware start it next. Nothing logs what such a system writes, to this
 * disk or to others: their logs are in doubt, durably, before. Undefined: the agent starts the system. Errors: BOOT_NO_SYSTEM, and
 * those of the disk and of the state directories.
 */
async function elsewhere(options: StartSystemOptions): Promise<BootEntry | undefined> {
  const { stateDir, configured, entry, variables, others = [] } = options
  if (entry === undefined) return undefined
  const disk = await requireOwnDisk(await ownDisk(stateDir, configured), stateDir, options)
  if (LINUX_ROOTS.has((await typeOf(disk)) ?? '')) return undefined
  await doubtLogs([stateDir, ...others], options)
  return bootNext({ entry, ...(variables === undefined ? {} : { variables }) })
}

/** The file system of the state was repaired: what the logs say may be older than what was written. Errors: those of the state directories. */
export async function doubtRepaired(stateDir: string): Promise<void> {
  for (const directory of [stateDir, ...(await partDirectories(stateDir))]) {
    const state = await StateDirectory.open(directory, { create: false })
    await recordLogDoubt(state, 'the file system of the state directory was repaired').finally(() => state.close())
  }
}

/** A system that is started now can write to the disks of these machines, past their logs. */
async function doubtLogs(
  stateDirs: readonly string[],
  { configured: _, ...options }: StartSystemOptions,
): Promise<void> {
  for (const stateDir of stateDirs) {
    if ((await readLogConfig(stateDir)) === undefined) continue
    const reason = 'another system of this computer was started, whose writes are not logged'
    await withMachine({ ...options, stateDir }, ({ state }) => recordLogDoubt(state, reason))
  }
}

/** Nothing is done to a machine of another site, and nothing to the master’s disk. Errors: STATE_MISSING, STATE_OTHER_SITE, USAGE, those of the file. */
export async function assertForThisSite({
  stateDir,
  siteId,
}: Pick<StartSystemOptions, 'stateDir' | 'siteId'>): Promise<void> {
  const machine = await rememberedMachine(stateDir)
  if (machine === undefined) throw new MeshError('STATE_MISSING', 'this machine has not joined a site')
  if (machine.siteId !== siteId)
    throw new MeshError(
      'STATE_OTHER_SITE',
      `this machine belongs to the site ${machine.site}, the agent to another one`,
    )
  // Changes on the master’s disk are published; a restore would undo them.
  if (machine.role === 'master')
    throw new MeshError(
      'USAGE',
      'this is the master, whose disk is the model; the agent starts the machines that are restored',
    )
}

async function withMachine(
  { stateDir, configured }: StartSystemOptions,
  work: (machine: Machine) => Promise<void>,
): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const machine = stack.adopt(
    await Machine.open(stateDir, { ...(configured === undefined ? {} : { configured }) }),
    (it) => it.close(),
  )
  await work(machine)
}

/** The configuration file speaks of the system’s disk alone. */
async function restoreBefore({ before = [], about, configured: _, ...options }: StartSystemOptions): Promise<void> {
  for (const { stateDir, image } of before) {
    about?.(image)
    await whenDiskIsThere(() => restoreMachine({ ...options, stateDir, force: false }))
  }
}

/** A disk on USB or behind a slow controller appears later than the state partition. */
async function whenDiskIsThere<T>(work: () => Promise<T>): Promise<T> {
  const until = performance.now() + DISK_WAIT_MS
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!isMeshError(error, 'DISK_MISSING') || performance.now() >= until) throw error
      await sleep(DISK_TICK_MS)
    }
  }
}

/** The device that logs what is written through it. */
async function logged(options: StartSystemOptions): Promise<string> {
  const { stateDir, configured, era, signal, report } = options
  const disk = await ownDisk(stateDir, configured)
  const place = { stateDir, disk, name: era, signal, report }
  return (await monitorEra({ ...place, ...(configured === undefined ? {} : { configured }) })).device
}

/** Errors: BOOT_NO_SYSTEM if there is no file system, or no /sbin/init on it. */
async function mountRoot(device: string, { root }: Pick<StartSystemOptions, 'root'>): Promise<void> {
  const type = await typeOf(device)
  if (type === undefined) throw new MeshError('BOOT_NO_SYSTEM', `${device} holds no file system that is known`)
  await runBootTool('mount', ['-t', type, '-o', 'ro', device, root])
  // A link leads to where it will lead in the system, which cannot be followed from here.
  const init = await lstat(join(root, 'sbin/init')).catch(() => undefined)
  if (init !== undefined) return
  await runBootTool('umount', [root])
  throw new MeshError('BOOT_NO_SYSTEM', `the file system of ${device} has no /sbin/init`)
}

/** Errors: DISK_SECTORS if no system could read it from this disk. */
async function typeOf(path: string): Promise<string | undefined> {
  const device = await openDevice(path, { writable: false })
  try {
    const head = Buffer.alloc(Math.min(MAGIC_BYTES, device.size))
    await device.read(byteOffset(0), head)
    const [type, piece, { sectorSize = 512 }] = [fileSystemOf(head), smallestPiece(head), device]
    if (piece === undefined || piece >= sectorSize) return type
    const text = `${path} has sectors of ${sectorSize} bytes, and the ${type} of the image is in pieces of ${piece}; make the model’s file system on a disk with such sectors, or with mke2fs -b ${sectorSize}`
    throw new MeshError('DISK_SECTORS', text)
  } finally {
    await device.close()
  }
}
