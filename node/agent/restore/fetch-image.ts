import { open } from 'node:fs/promises'
import { openDevice } from '../../disk/file-device.ts'
import { HashPool } from '../../disk/hash-pool.ts'
import { restore } from '../../restore/restore.ts'
import { storageError } from '../../state/atomic-file.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { ScanLog } from '../../writelog/scan-log.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { secureRandom } from '../machine/secure-random.ts'
import { RestoreNetwork } from './restore-network.ts'

/** Options of {@link fetchImage}. */
interface FetchImageOptions extends AgentOptions {
  readonly image: string
  /** The file that gets the content. What it has of it already is not fetched. */
  readonly target: string
  /** How long to wait for peers, in milliseconds; default: the constants. */
  readonly waitMs?: number
  readonly bringUp?: () => Promise<void>
}

/**
 * Brings a file to the newest release of an image that this machine trusts, block by block and verified as a disk is. It leaves no
 * receipt. Errors: IMAGE_UNKNOWN, DISK_FULL, those of `restore`, of the network and of the state directory.
 */
export async function fetchImage(options: FetchImageOptions): Promise<VerifiedManifest> {
  const { stateDir, image, target, waitMs, bringUp, listen, mdns, signal, report } = options
  await using stack = new AsyncDisposableStack()
  const machine = stack.adopt(await Machine.open(stateDir, options), (it) => it.close())
  const manifest = machine.manifest(image)
  const { release } = manifest
  const common = { machine, listen, mdns, report, signal }
  const network = stack.adopt(new RestoreNetwork({ ...common, serving: {}, release, waitMs, bringUp }), (it) =>
    it.stop(),
  )
  await makeFile(target, manifest.size)
  const device = stack.adopt(await openDevice(target, { writable: true }), (it) => it.close())
  const pool = stack.adopt(new HashPool({ here: true }), (it) => it.close())
  await restore({
    manifest,
    target: { device, log: new ScanLog('a file has no log') },
    sources: {
      trees: new TreeStore(await machine.home.subdirectory('trees')),
      fetcher: () => network.fetcher(manifest),
    },
    steps: { beforeWriting: async () => undefined },
    pool,
    progress: (progress) => report({ type: 'progress', ...progress, ...network.peerCount() }),
    signal,
    names: { machine: machine.config.name, nameOf: (peerId) => machine.nameOf(peerId) },
    random: secureRandom,
  })
  return manifest
}

async function makeFile(path: string, size: number): Promise<void> {
  try {
    await using file = await open(path, 'a')
    await file.truncate(size)
  } catch (error) {
    throw storageError(error, path)
  }
}
