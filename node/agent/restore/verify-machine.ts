import { openDevice } from '../../disk/file-device.ts'
import { HashPool } from '../../disk/hash-pool.ts'
import { type VerifyReport, verifyDisk } from '../../restore/verify.ts'
import { TreeStore } from '../../store/tree-store.ts'
import { chooseDisk } from '../machine/choose-disk.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'

/** Options of `mesh verify`. */
interface VerifyMachineOptions extends Pick<AgentOptions, 'stateDir' | 'configured' | 'report' | 'signal'> {
  /** Default: the image of this machine. */
  readonly image?: string
  /** Default: the newest release. */
  readonly release?: number
}

/**
 * `mesh verify`: compares the whole disk with a release, by default the newest. Changes nothing and takes no lock.
 * Errors: those of {@link chooseDisk}, of the disk and of the state directory.
 */
export async function verifyMachine(options: VerifyMachineOptions): Promise<VerifyReport> {
  await using stack = new AsyncDisposableStack()
  const pool = stack.adopt(new HashPool({ here: true }), (it) => it.close())
  // While the state is read the other cores have nothing to do.
  pool.prepare(Number.POSITIVE_INFINITY)
  const machine = stack.adopt(await Machine.look(options.stateDir, options.configured), (it) => it.close())
  const { path } = await chooseDisk(machine.config, options)
  const device = stack.adopt(await openDevice(path, { writable: false }), (it) => it.close())
  return await verifyDisk({
    device,
    manifest: machine.manifest(options.image, options.release),
    trees: new TreeStore(machine.home.path('trees')),
    pool,
    progress: (progress) => options.report({ type: 'progress', ...progress }),
    signal: options.signal,
  })
}
