import { resolve } from 'node:path'
import { openDevice } from '../../disk/file-device.ts'
import { parseNbdUri } from '../../nbd/nbd-uri.ts'
import { QemuBitmap } from '../../writelog/qemu-bitmap.ts'
import type { LogState } from '../../writelog/write-log.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { ConfiguredMachine } from '../machine/options.ts'
import { requireOwnDisk } from '../machine/own-disk.ts'
import { defaultLogStorage, type LogConfig, logPlace, readLogConfig } from './log-config.ts'
import { setUpLog } from './open-log.ts'

/** Options of `mesh monitor --qemu`. */
interface MonitorQemuOptions {
  readonly stateDir: string
  /** The disk of this machine. */
  readonly disk: string
  readonly configured?: ConfiguredMachine
  /** The qcow2 file over it, made if it is missing. */
  readonly image: string
  /** Address of an NBD export by which a running machine publishes its bitmaps; default: the one given before. */
  readonly live?: string
  /** Where the bitmap is kept; default: where it was kept before, else in the state directory. */
  readonly storage?: string
  readonly report: (event: AgentEvent) => void
}

/** Result of `mesh monitor --qemu`. */
interface QemuMonitored {
  readonly event: 'monitoring'
  readonly source: 'qemu'
  readonly disk: string
  readonly image: string
  /** The option of QEMU that gives a machine this disk. */
  readonly drive: string
  readonly state: LogState['state']
}

/**
 * `mesh monitor DISK --qemu FILE`: from now on restores go by the dirty bitmaps that QEMU keeps in FILE; it returns at once.
 * Errors: DISK_IN_USE, QEMU_FAILED, TOOL_MISSING, NBD_ADDRESS_INVALID, DISK_NOT_OWN, those of the state directory.
 */
export async function monitorQemu(options: MonitorQemuOptions): Promise<QemuMonitored> {
  await using stack = new AsyncDisposableStack()
  const { stateDir, report } = options
  const image = resolve(options.image)
  const disk = await requireOwnDisk(options.disk, stateDir, options)
  const config = await chooseConfig(options, image)
  const device = stack.adopt(await openDevice(disk, { writable: false }), (it) => it.close())
  const tracker = new QemuBitmap({ image, disk })
  const { unitSize } = tracker
  const bitmap = await setUpLog(stateDir, config, device, stack, { unitSize, prepare: () => tracker.prepare() })
  const log = await bitmap.open()
  const known = log.state === 'unknown' ? log : await tracker.changedSince(bitmap.period)
  if (known.state === 'unknown')
    report({ type: 'note', text: `the next restore will read the whole disk: ${known.reason}` })
  const drive = `-drive file=${image.replaceAll(',', ',,')},format=qcow2`
  const dirty = log.state === 'dirty' || (known.state === 'known' && !known.units.isEmpty)
  const now = known.state === 'unknown' ? 'unknown' : dirty ? 'dirty' : 'clean'
  return { event: 'monitoring', source: 'qemu', disk, image, drive, state: now }
}

async function chooseConfig(
  options: Pick<MonitorQemuOptions, 'stateDir' | 'storage' | 'live'>,
  image: string,
): Promise<LogConfig> {
  const { stateDir } = options
  const known = await readLogConfig(stateDir)
  const storage = logPlace(options.storage ?? known?.storage ?? defaultLogStorage(stateDir))
  const live = options.live ?? (known?.source === 'qemu' ? known.live : undefined)
  if (live === undefined) return { source: 'qemu', image, storage }
  parseNbdUri(live)
  return { source: 'qemu', image, storage, live }
}
