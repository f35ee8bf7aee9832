import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { MeshError } from '../../protocol/errors.ts'
import { openDevice } from '../disk/file-device.ts'
import { assertNotMounted } from '../disk/mounts.ts'
import type { NbdExport } from '../nbd/nbd-export.ts'
import type { NbdAddress } from '../nbd/nbd-listen.ts'
import { NbdServer } from '../nbd/nbd-server.ts'
import { StateDirectory } from '../state/state-directory.ts'
import { LoggedDisk } from '../writelog/logged-disk.ts'
import type { AgentEvent } from './agent.ts'
import { defaultLogStorage, logPlace, readLogConfig, setUpLog } from './machine-log.ts'

export interface MonitorOptions {
  readonly stateDir: string
  /** The disk of this machine. */
  readonly disk: string
  readonly address: NbdAddress
  /** Where the log is kept; default: where it was kept before, else in the state directory. */
  readonly storage?: string
  readonly readOnly: boolean
  /** Serve the disk although it is mounted. */
  readonly force: boolean
  readonly signal: AbortSignal
  readonly report: (event: AgentEvent) => void
}

/** Result of `mesh monitor`. */
export interface Monitored {
  readonly event: 'stopped'
  /** Granules that the log calls dirty. */
  readonly dirty: number
  /** Flushes of the log since the start: what first writes wait for. */
  readonly flushes: number
}

/**
 * `mesh monitor DISK --nbd`: serves the disk over NBD and logs what is written, until the signal aborts. From its first run
 * on, restores go by this log, so everything that writes to the disk must go through it. Errors: STATE_MISSING,
 * STATE_IN_USE, DISK_NOT_OWN, DISK_MOUNTED, PORT_TAKEN, NBD_ADDRESS_INVALID, and those of the disk and of the log's storage.
 */
export async function monitor(options: MonitorOptions): Promise<Monitored> {
  await using stack = new AsyncDisposableStack()
  const { stateDir, disk, readOnly, report, signal } = options
  const state = await StateDirectory.open(stateDir, { create: false, readOnly: true })
  await assertOwnDisk(disk, state)
  await assertNotMounted(disk, options)
  const device = stack.adopt(await openDevice(disk, { writable: !readOnly }), (it) => it.close())
  const disks = Promise.withResolvers<NbdExport[]>()
  // An address that cannot be had must leave the log that there is alone, so it is taken first; clients wait for the log.
  const server = await NbdServer.listen(options.address, {
    exports: disks.promise,
    onFault: (client, error) => report({ type: 'warning', text: `${client}: ${textOf(error)}` }),
  })
  stack.defer(async () => {
    disks.resolve([])
    await server.close()
  })
  const known = await readLogConfig(stateDir)
  const storage = options.storage ?? known?.storage ?? defaultLogStorage(stateDir)
  const log = await setUpLog(stateDir, { source: 'nbd', storage: logPlace(storage) }, device, stack)
  const openedFrom = performance.now()
  const logged = await log.open()
  const openMs = performance.now() - openedFrom
  if (logged.state === 'unknown')
    report({ type: 'note', text: `the next restore will read the whole disk: ${logged.reason}` })
  disks.resolve([new LoggedDisk({ name: basename(disk), device, log, readOnly })])
  report({ type: 'monitoring', disk, uri: server.uri, state: logged.state, dirty: log.dirtyCount, openMs })
  if (!signal.aborted)
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
  // In this order: no more writes, everything written is durable, the log is closed over it.
  await server.close()
  if (!readOnly) await device.flush()
  await log.close()
  return { event: 'stopped', dirty: log.dirtyCount, flushes: log.flushes }
}

/** A log of another disk than the one that is restored would be of no use, and would be taken for this one's. */
export async function assertOwnDisk(disk: string, state: StateDirectory): Promise<void> {
  const own = state.machine?.disk
  if (own === undefined)
    throw new MeshError('STATE_MISSING', `${state.directory} belongs to no machine with a disk yet`)
  const [given, known] = await Promise.all([stat(disk).catch(() => undefined), stat(own).catch(() => undefined)])
  // A missing disk is told of when it is opened.
  if (given === undefined) return
  const same = given.isBlockDevice()
    ? known?.isBlockDevice() === true && given.rdev === known.rdev
    : given.dev === known?.dev && given.ino === known.ino
  if (!same) throw new MeshError('DISK_NOT_OWN', `${disk} is not the disk of this machine, which is ${own}`)
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
