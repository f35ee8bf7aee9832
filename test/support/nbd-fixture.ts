import { onTestFinished } from 'vitest'
import type { BlockDevice } from '../../node/disk/block-device.ts'
import { NbdServer } from '../../node/nbd/nbd-server.ts'
import { DurableBitmap, logFileSize } from '../../node/writelog/durable-bitmap.ts'
import { LoggedDisk } from '../../node/writelog/logged-disk.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { FaultyDevice } from '../fakes/faulty-device.ts'
import { imaginedDisk } from './log-disk.ts'
import { temporaryDirectory } from './temporary.ts'

export const NBD_DISK_BYTES = 1024 ** 2
const RELEASE = { release: 1, root: new Uint8Array(32).fill(7) }

export interface ServedDisk {
  readonly path: string
  readonly server: NbdServer
  readonly device: FaultyDevice
  readonly storage: FaultyDevice
  readonly log: DurableBitmap
  /** What the server complained of: `client 1: NBD_PROTOCOL`. */
  readonly faults: string[]
}

/** A logged disk in memory, all clean, served on a Unix socket. `wrap`: puts something between server and disk. */
export async function serveLoggedDisk(
  options: { readOnly?: boolean; size?: number; wrap?: (device: FaultyDevice) => BlockDevice } = {},
): Promise<ServedDisk> {
  const { readOnly = false, size = NBD_DISK_BYTES, wrap } = options
  const device = new FaultyDevice(Buffer.alloc(size))
  const storage = new FaultyDevice(Buffer.alloc(logFileSize(size)))
  const log = new DurableBitmap({ storage, disk: imaginedDisk(size), source: 'nbd', release: RELEASE })
  await log.open()
  await log.reset(RangeSet.empty)
  const path = `${await temporaryDirectory()}/nbd`
  const faults: string[] = []
  const server = await NbdServer.listen(
    { unix: path },
    {
      exports: [new LoggedDisk({ name: 'disk', device: wrap?.(device) ?? device, log, readOnly })],
      onFault: (client, error) =>
        faults.push(`${client}: ${(error as { code?: string }).code ?? (error as Error).message}`),
    },
  )
  onTestFinished(() => server.close())
  return { path, server, device, storage, log, faults }
}
