import { basename, join } from 'node:path'
import type { BlockDevice } from '../../disk/block-device.ts'
import { assertUnused } from '../../disk/disk-use.ts'
import { openDevice } from '../../disk/file-device.ts'
import type { NbdExport } from '../../nbd/nbd-export.ts'
import type { NbdAddress } from '../../nbd/nbd-listen.ts'
import { NbdServer } from '../../nbd/nbd-server.ts'
import { listenInPlace } from '../../state/socket-place.ts'
import { logLockFile } from '../../writelog/log-lock.ts'
import { LoggedDisk } from '../../writelog/logged-disk.ts'
import { aborted } from '../machine/aborted.ts'
import type { AgentEvent } from '../machine/events.ts'
import { type HookOptions, type HooksReport, runMachineHooks } from '../machine/hooks.ts'
import type { ConfiguredMachine } from '../machine/options.ts'
import { requireOwnDisk } from '../machine/own-disk.ts'
import { defaultLogStorage, logPlace, readLogConfig } from './log-config.ts'
import { setUpLog } from './open-log.ts'
import { tellServiceManager } from './service-manager.ts'

/** Options of `mesh monitor --nbd`. */
export interface MonitorNbdOptions {
  readonly stateDir: string
  /** The disk of this machine. */
  readonly disk: string
  readonly configured?: ConfiguredMachine
  readonly address: NbdAddress
  /** Where the log is kept; default: where it was kept before, else in the state directory. */
  readonly storage?: string
  readonly readOnly: boolean
  /** Serve the disk although it is mounted. */
  readonly force: boolean
  /** Run when the log is there and nobody else can write yet. */
  readonly hooks?: HookOptions
  readonly signal: AbortSignal
  readonly report: (event: AgentEvent) => void
}

/** Result of `mesh monitor`. */
interface NbdMonitored {
  readonly event: 'stopped'
  /** Units that the log calls dirty. */
  readonly dirty: number
  /** Flushes of the log since the start: what first writes wait for. */
  readonly flushes: number
  readonly hooks?: HooksReport
}

/**
 * `mesh monitor DISK --nbd`: serves the disk over NBD and logs what is written, until the signal aborts. From its first run on
 * restores go by this log, so all writes to the disk must go through the server. Errors: STATE_MISSING,
 * STATE_IN_USE, DISK_NOT_OWN, DISK_MOUNTED, DISK_IN_USE, PORT_TAKEN, NBD_ADDRESS_INVALID, and those of the disk and of the log's storage.
 */
export async function monitorNbd(options: MonitorNbdOptions): Promise<NbdMonitored> {
  await using stack = new AsyncDisposableStack()
  const { stateDir, readOnly, report, signal } = options
  const disk = await requireOwnDisk(options.disk, stateDir, options)
  const { force } = options
  const to = readOnly ? 'read' : 'write'
  const { byOurs } = await assertUnused(disk, { to, force, ours: [logLockFile(stateDir)] })
  const alone = !readOnly && !force && !byOurs
  const device = stack.adopt(await openDevice(disk, { writable: !readOnly, alone }), (it) => it.close())
  const disks = Promise.withResolvers<NbdExport[]>()
  // The address is taken first: if it cannot be had, the log stays as it is. Clients wait for the log.
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
  const exported = new LoggedDisk({ name: basename(disk), device, log, readOnly })
  const hooks = await hooksThrough(exported, device, options)
  disks.resolve([exported])
  if (!signal.aborted) await tellServiceManager()
  // The hooks may have written since the log was opened.
  const state = logged.state === 'clean' && log.dirtyCount > 0 ? 'dirty' : logged.state
  report({ type: 'monitoring', disk, uri: server.uri, state, dirty: log.dirtyCount, openMs })
  await aborted(signal)
  // First no more writes, then what was written is durable, then the log is closed over it.
  await server.close()
  if (!readOnly) await device.flush()
  await log.close()
  return {
    event: 'stopped',
    dirty: log.dirtyCount,
    flushes: log.flushes,
    ...(hooks === undefined ? {} : { hooks }),
  }
}

type HookedMonitor = Pick<MonitorNbdOptions, 'hooks' | 'stateDir' | 'readOnly' | 'signal' | 'report'>

/** Runs the hooks. They reach the disk by a socket of their own; all other clients wait until the hooks have ended. */
async function hooksThrough(
  exported: NbdExport,
  device: BlockDevice,
  { hooks, stateDir, signal, report, readOnly }: HookedMonitor,
): Promise<HooksReport | undefined> {
  if (hooks === undefined) return undefined
  if (readOnly) {
    report({ type: 'note', text: 'hooks are not run, as the disk is served read-only' })
    return undefined
  }
  const { listening: server, release } = await listenInPlace(join(stateDir, 'write-log'), 'hooks.sock', (unix) =>
    NbdServer.listen({ unix }, { exports: [exported] }),
  )
  try {
    const place = { MESH_NBD_URI: server.uri }
    return await runMachineHooks({ stateDir, hooks, place, flush: () => device.flush(), signal, report })
  } finally {
    await server.close()
    await release()
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
