import { MeshError } from '../../../protocol/errors.ts'
import { RangeSet, type Run } from '../../../protocol/ranges.ts'
import type { ConfiguredMachine } from '../machine/options.ts'
import { ownDisk } from '../machine/own-disk.ts'
import { MAP_CELLS } from './limits.ts'
import { type LogConfig, readLogConfig, removeLog } from './log-config.ts'
import { type LogPeek, peekLog } from './log-peek.ts'

/** Result of `mesh log show`. */
export interface LogReport {
  readonly event: 'log'
  readonly disk: string
  /** Who marks: `scan` means that no log is kept. */
  readonly source: LogConfig['source'] | 'scan'
  readonly state: 'clean' | 'dirty' | 'unknown'
  /** Why nothing is known, else ''. */
  readonly reason: string
  /** Where the bitmap is kept. */
  readonly storage?: string
  readonly unitSize?: number
  /** Units of the disk, and those that may differ from the release. */
  readonly units?: number
  readonly dirty?: number
  readonly release?: number
  readonly root?: string
  /** ISO 8601: the end of the last restore. */
  readonly since?: string
  /** A monitor has the log open, or was killed before it closed it. */
  readonly inUse?: boolean
  /** Dirty units in each of up to 64 equal parts of the disk. */
  readonly map?: readonly number[]
}

/** Result of `mesh log export`. */
interface LogExport extends Omit<LogReport, 'event' | 'map'> {
  readonly event: 'log-export'
  /** Runs [start, end) of dirty units. */
  readonly ranges: readonly Run[]
}

/** What the write log of this machine's disk says, also while a monitor has it. Errors: those of the state directory and the disk. */
export async function showLog(stateDir: string, configured?: ConfiguredMachine): Promise<LogReport> {
  const { disk, config, log } = await look(stateDir, configured)
  return { event: 'log', ...describe(disk, config, log), ...(log?.state === 'known' ? { map: mapOf(log) } : {}) }
}

/** The dirty units of this machine's disk. Errors: STATE_MISSING if no log is kept, or if it knows nothing. */
export async function exportLog(stateDir: string, configured?: ConfiguredMachine): Promise<LogExport> {
  const { disk, config, log } = await look(stateDir, configured)
  if (log?.state !== 'known')
    throw new MeshError('STATE_MISSING', `there is no log to export: ${describe(disk, config, log).reason}`)
  return { event: 'log-export', ...describe(disk, config, log), ranges: [...log.dirty.runs()] }
}

/** From now on no log is kept, and every restore scans. Errors: STATE_IN_USE while a monitor or a restore has it. */
export async function forgetLog(
  stateDir: string,
  configured?: ConfiguredMachine,
): Promise<{ event: 'log-forgotten'; existed: boolean }> {
  const existed = (await look(stateDir, configured)).config !== undefined
  if (existed) await removeLog(stateDir)
  return { event: 'log-forgotten', existed }
}

interface Look {
  readonly disk: string
  readonly config: LogConfig | undefined
  readonly log: LogPeek | undefined
}

async function look(stateDir: string, configured?: ConfiguredMachine): Promise<Look> {
  const disk = await ownDisk(stateDir, configured)
  const config = await readLogConfig(stateDir)
  return { disk, config, log: config === undefined ? undefined : await peekLog(config, disk) }
}

function describe(disk: string, config: LogConfig | undefined, log: LogPeek | undefined): Omit<LogReport, 'event'> {
  if (config === undefined || log === undefined)
    return { disk, source: 'scan', state: 'unknown', reason: 'no write log is kept for this disk' }
  const { source, storage } = config
  if (log.state === 'unknown') return { disk, source, storage, state: 'unknown', reason: log.reason }
  const { unitSize, diskSize, dirty, release, root, since, inUse } = log
  return {
    disk,
    source,
    storage,
    state: dirty.isEmpty ? 'clean' : 'dirty',
    reason: '',
    unitSize,
    units: Math.ceil(diskSize / unitSize),
    dirty: dirty.count,
    release,
    root,
    since: new Date(since).toISOString(),
    inUse,
  }
}

function mapOf({ dirty, diskSize, unitSize }: Extract<LogPeek, { state: 'known' }>): number[] {
  const units = Math.ceil(diskSize / unitSize)
  const cells = Math.min(MAP_CELLS, units)
  const bounds = Array.from({ length: cells + 1 }, (_, i) => Math.floor((i * units) / cells))
  return Array.from({ length: cells }, (_, i) => dirty.intersect(RangeSet.of(bounds[i]!, bounds[i + 1]!)).count)
}
