import { randomInt } from 'node:crypto'
import { rm, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { byteOffset } from '../../../protocol/units.ts'
import { assertUnused } from '../../disk/disk-use.ts'
import { openDevice } from '../../disk/file-device.ts'
import { storageError, writeZeros } from '../../state/atomic-file.ts'
import { ERA_BLOCK_SECTORS, ERA_SYSTEM, EraDevice, type EraSystem } from '../../writelog/era-device.ts'
import {
  ERA_BLOCK_BYTES,
  ERA_METADATA_BASE_BYTES,
  ERA_METADATA_BYTES_PER_BLOCK,
  LOG_READ_BYTES,
  MAX_ERAS_BETWEEN_MONITORS,
} from '../../writelog/limits.ts'
import { logLockFile } from '../../writelog/log-lock.ts'
import type { LogState } from '../../writelog/write-log.ts'
import type { AgentEvent } from '../machine/events.ts'
import { type HookOptions, type HooksReport, runMachineHooks } from '../machine/hooks.ts'
import type { ConfiguredMachine } from '../machine/options.ts'
import { requireOwnDisk } from '../machine/own-disk.ts'
import { defaultLogStorage, type LogConfig, logPlace, readLogConfig, writeLogConfig } from './log-config.ts'
import { setUpLog } from './open-log.ts'

type EraConfig = Extract<LogConfig, { source: 'dm-era' }>

/** Options of `mesh monitor --era`. */
interface MonitorEraOptions {
  readonly stateDir: string
  /** The disk of this machine, a block device. */
  readonly disk: string
  readonly configured?: ConfiguredMachine
  /** The device to mount is `/dev/mapper/NAME`. */
  readonly name: string
  /** Partition or file for the metadata; default: what was used before, else a file in the state directory. */
  readonly metadata?: string
  /** Where the bitmap is kept; default: where it was kept before, else in the state directory. */
  readonly storage?: string
  /** Run when the device is there. */
  readonly hooks?: HookOptions
  readonly signal: AbortSignal
  readonly report: (event: AgentEvent) => void
  readonly system?: EraSystem
}

/** Result of `mesh monitor --era`. */
export interface EraMonitored {
  readonly event: 'monitoring'
  readonly source: 'dm-era'
  readonly disk: string
  /** What to mount instead of the disk. */
  readonly device: string
  readonly metadata: string
  readonly era: number
  readonly state: LogState['state']
  readonly hooks?: HooksReport
}

/**
 * `mesh monitor DISK --era NAME`: from now on the kernel logs what is written through `/dev/mapper/NAME`. The command runs at each
 * boot, after the restore and before the disk is mounted, and returns at once. If the metadata cannot be believed, they begin anew
 * and the log is unknown. Errors: ERA_FAILED, ERA_NAME_TAKEN, ERA_METADATA_INVALID, TOOL_MISSING, DISK_MOUNTED,
 * DISK_NOT_OWN, DISK_NOT_A_DISK, those of the state directory.
 */
export async function monitorEra(options: MonitorEraOptions): Promise<EraMonitored> {
  await using stack = new AsyncDisposableStack()
  const { stateDir, name, report, system = ERA_SYSTEM } = options
  const disk = await requireOwnDisk(options.disk, stateDir, options)
  const config = await chooseConfig(options)
  const device = new EraDevice({ name, metadata: config.metadata, disk }, system)
  await device.disk()
  const active = await device.isActive()
  if (active) await assertOursOrTaken(device, config)
  else await assertUnused(disk, { to: 'write', force: false, ours: [logLockFile(stateDir)] })
  const opened = stack.adopt(await openDevice(disk, { writable: false }), (it) => it.close())
  const bitmap = await setUpLog(stateDir, config, opened, stack, { unitSize: ERA_BLOCK_BYTES })
  const log = await bitmap.open()
  if (log.state === 'unknown')
    report({ type: 'note', text: `the next restore will read the whole disk: ${log.reason}` })
  if (active && !(await device.refusesDiscards())) {
    await bitmap.doubt('the era device let discards through')
    await device.refuseDiscards()
    report({ type: 'warning', text: `${name} let discards through, so the next restore will read the whole disk` })
  }
  const { used, era } = active
    ? { used: config, era: await device.look((running) => running.currentEra()) }
    : await activate(device, config, options)
  await writeLogConfig(stateDir, { ...used, last: era })
  const { metadata } = used
  const mapped = `/dev/mapper/${name}`
  const hooks = await hooksThrough(mapped, options)
  return {
    event: 'monitoring',
    source: 'dm-era',
    disk,
    device: mapped,
    metadata,
    era,
    state: log.state,
    ...(hooks === undefined ? {} : { hooks }),
  }
}

type HookedMonitor = Pick<MonitorEraOptions, 'hooks' | 'stateDir' | 'signal' | 'report' | 'system'>

/** Hooks reach the disk by the device that logs. */
async function hooksThrough(
  device: string,
  { hooks, stateDir, signal, report, system = ERA_SYSTEM }: HookedMonitor,
): Promise<HooksReport | undefined> {
  if (hooks === undefined) return undefined
  const flush = async (): Promise<void> => void (await system.run('sync', [device]))
  return runMachineHooks({ stateDir, hooks, place: { MESH_DEVICE: device }, flush, signal, report })
}

/** What the user asks for, completed by what was set up before. `last` is 0 for metadata that are not made yet. */
async function chooseConfig(
  options: Pick<MonitorEraOptions, 'stateDir' | 'name' | 'metadata' | 'storage'>,
): Promise<EraConfig> {
  const { stateDir, name } = options
  const known = await readLogConfig(stateDir)
  const before = known?.source === 'dm-era' ? known : undefined
  const metadata = resolve(options.metadata ?? before?.metadata ?? join(stateDir, 'write-log', 'era-metadata'))
  const storage = logPlace(options.storage ?? known?.storage ?? defaultLogStorage(stateDir))
  const origin =
    before?.metadata === metadata && before.name === name
      ? { first: before.first, last: before.last }
      : { first: 0, last: 0 }
  return { source: 'dm-era', name, metadata, storage, ...origin }
}

async function assertOursOrTaken(device: EraDevice, { name, last }: EraConfig): Promise<void> {
  try {
    if (last === 0) throw new MeshError('ERA_FAILED', `the device ${name} was not set up for this state directory`)
    await device.assertOurs()
  } catch (error) {
    if (!isMeshError(error, 'ERA_FAILED')) throw error
    throw new MeshError('ERA_NAME_TAKEN', error.message, { detail: { name }, cause: error })
  }
}

/** Activates the device with the metadata of the last time if they are still there, else with new ones. Returns its era as well. */
async function activate(
  device: EraDevice,
  config: EraConfig,
  { stateDir, report, system = ERA_SYSTEM }: Pick<MonitorEraOptions, 'stateDir' | 'report' | 'system'>,
): Promise<{ readonly used: EraConfig; readonly era: number }> {
  let wereEra = false
  if (config.last > 0) {
    const found = await activateKnown(device, config)
    if ('era' in found) return { used: config, era: found.era }
    wereEra = found.areEra
    const text = `${found.fault}; the log begins anew, the next restore will read the whole disk`
    report({ type: 'warning', text })
  }
  // The configuration is durable before the metadata are. After a crash between the two the metadata do not fit, and are made again.
  const first = randomInt(MAX_ERAS_BETWEEN_MONITORS, 2 ** 31)
  const renewed = { ...config, first, last: first }
  const place = await choosePlace(device, { file: config.last > 0, device: wereEra })
  await writeLogConfig(stateDir, renewed)
  await makeMetadata(place, first, stateDir, system)
  const running = await device.activate()
  return { used: renewed, era: await running.currentEra() }
}

/** `fault`: why these metadata are not used; `areEra`: the kernel took them for its own at least. */
async function activateKnown(
  device: EraDevice,
  { last }: EraConfig,
): Promise<{ readonly era: number } | { readonly fault: string; readonly areEra: boolean }> {
  let areEra = false
  try {
    const running = await device.activate()
    areEra = true
    const era = await running.currentEra()
    if (era > last && era <= last + MAX_ERAS_BETWEEN_MONITORS) return { era }
    await device.deactivate()
    return { areEra, fault: `${device.place.metadata} has counted ${era} eras, and had counted ${last} before` }
  } catch (error) {
    if (!isMeshError(error, 'ERA_FAILED', 'DISK_MISSING')) throw error
    if (await device.isActive()) await device.deactivate()
    return { areEra, fault: error.message }
  }
}

/** Bytes of metadata for a disk: 0.04 % of it, and some. */
function metadataSize(diskSectors: number): number {
  return ERA_METADATA_BASE_BYTES + Math.ceil(diskSectors / ERA_BLOCK_SECTORS) * ERA_METADATA_BYTES_PER_BLOCK
}

interface MetadataPlace {
  readonly path: string
  readonly isFile: boolean
  /** Bytes that the metadata will take. */
  readonly size: number
}

/**
 * Where new metadata may go. What holds something else is left alone: a file must have been ours before, or be empty; a
 * device, whose name may stand for another one at each boot, must hold metadata now, or zeros.
 */
async function choosePlace(
  device: EraDevice,
  ours: { readonly file: boolean; readonly device: boolean },
): Promise<MetadataPlace> {
  const path = device.place.metadata
  const size = metadataSize(await device.sectors())
  const found = await stat(path).catch(() => undefined)
  if (found === undefined && path.startsWith('/dev/'))
    throw new MeshError('DISK_MISSING', `${path} does not exist`, { detail: { path } })
  const isFile = found === undefined || found.isFile()
  if (isFile && !ours.file && (found?.size ?? 0) > 0) throw notEmpty(path)
  if (!isFile) await assertUsable(path, size, ours.device)
  return { path, isFile, size }
}

/**
 * Makes metadata whose first era is `first`. From zeros the kernel would make metadata that begin with era 1, on each machine and each
 * time, so that old ones could not be told from new ones. The kernel brings the one block given here to the size of the disk.
 * era_restore writes to files only, and past the page cache, which not every /tmp can do.
 */
async function makeMetadata(place: MetadataPlace, first: number, stateDir: string, { run }: EraSystem): Promise<void> {
  const { path, isFile, size } = place
  const [fresh, xml] = ['era-new', 'era-new.xml'].map((name) => join(stateDir, 'write-log', name)) as [string, string]
  const superblock = `<superblock uuid="" block_size="${ERA_BLOCK_SECTORS}" nr_blocks="1" current_era="${first}">`
  try {
    await writeFile(xml, `${superblock}<era_array><era block="0" era="0"/></era_array></superblock>`)
    const target = isFile ? path : fresh
    await writeZeros(target, size)
    await run('era_restore', ['--quiet', '-i', xml, '-o', target])
    if (!isFile) await copyTo(path, fresh)
  } catch (error) {
    throw isMeshError(error) ? error : storageError(error, path)
  } finally {
    for (const name of [fresh, xml]) await rm(name, { force: true })
  }
}

function notEmpty(path: string): MeshError {
  return new MeshError('ERA_METADATA_INVALID', `${path} holds something else`, { detail: { path } })
}

async function copyTo(path: string, file: string): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const from = stack.adopt(await openDevice(file, { writable: false }), (it) => it.close())
  const to = stack.adopt(await openDevice(path, { writable: true }), (it) => it.close())
  for (let at = 0; at < from.size; at += LOG_READ_BYTES) {
    const part = Buffer.alloc(Math.min(LOG_READ_BYTES, from.size - at))
    await from.read(byteOffset(at), part)
    await to.write(byteOffset(at), part)
  }
  await to.flush()
}

async function assertUsable(path: string, size: number, known: boolean): Promise<void> {
  await assertUnused(path, { to: 'write', force: false })
  const device = await openDevice(path, { writable: false })
  try {
    if (device.size < size)
      throw new MeshError('ERA_METADATA_INVALID', `${path} has ${device.size} bytes, ${size} are needed`, {
        detail: { path },
      })
    const start = Buffer.alloc(LOG_READ_BYTES)
    await device.read(byteOffset(0), start)
    if (!known && start.some((byte) => byte !== 0)) throw notEmpty(path)
  } finally {
    await device.close()
  }
}
