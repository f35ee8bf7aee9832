/**
 * The room `restore`: the disk of this machine is brought to a release, or compared with one.
 * `restoreMachine` is `mesh restore`. release-choice says which release it goes for, restore-release makes one attempt at it, and
 * restore-network is the network, which is started only if something has to be fetched. restore-stage, local-content and other-disks
 * are places on this computer where content is looked for first. verify-machine is `mesh verify`.
 */

import { resolve } from 'node:path'
import { assertUnused } from '../../disk/disk-use.ts'
import { openDevice } from '../../disk/file-device.ts'
import { HashPool } from '../../disk/hash-pool.ts'
import type { RestoreResult } from '../../restore/restore-result.ts'
import type { ServingConfig } from '../../state/machine-config.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { TrustView } from '../../trust/trusted-view.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { logLockFile } from '../../writelog/log-lock.ts'
import { statusMethods } from '../answer/status.ts'
import { readLogConfig } from '../log/log-config.ts'
import { chooseDisk, rememberDisk } from '../machine/choose-disk.ts'
import { type HookOptions, type HooksReport, runMachineHooks } from '../machine/hooks.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { rememberBeside, rememberServing } from '../machine/settings.ts'
import { unrecorded } from '../machine/unrecorded.ts'
import { keepFailure } from '../receipts/own-receipts.ts'
import { ReleaseChoice } from './release-choice.ts'
import { RestoreNetwork } from './restore-network.ts'
import { restoreRelease } from './restore-release.ts'

/** Options of `mesh restore`. */
interface RestoreMachineOptions extends AgentOptions {
  /** Default: the image of this machine. */
  readonly image?: string
  /** Default: the newest release. */
  readonly release?: number
  /** How long to wait for peers, and for somebody who holds what is missing, in milliseconds; default: the constants. */
  readonly waitMs?: number
  /** A new path of this machine's disk, remembered for the next time. */
  readonly disk?: string
  /** The disk at that path is this machine's from now on, whatever it was known by. */
  readonly acceptNewDisk?: boolean
  /** Write to the disk although it is mounted read-write. */
  readonly force: boolean
  /** State directories of the other managed disks of this computer. */
  readonly beside?: readonly string[]
  /** How long to serve the others at most once the disk is restored, in milliseconds; default: not at all. */
  readonly lingerMs?: number
  /** Run at the end, unless a monitor is set up, which runs them. */
  readonly hooks?: HookOptions
  /** Brings the network of this computer up; called before the network is used, if it is. */
  readonly bringUp?: () => Promise<void>
  /** Called with what became of the hooks. */
  readonly hooked?: (report: HooksReport) => void
  /** Called at the end with what the site says, as far as this machine has heard by then; `stateDir`: whose word it is. */
  readonly trusted?: (view: TrustView, stateDir: string) => void
}

/**
 * `mesh restore`: brings this machine's disk to the newest release it trusts. The network is used only if something has
 * to be fetched; then newer metadata is looked for first, and a newer release wins.
 * Errors: those of the state directory, of the disk, and of {@link restoreRelease}.
 */
export async function restoreMachine(options: RestoreMachineOptions): Promise<RestoreResult> {
  await using stack = new AsyncDisposableStack()
  const machine = stack.adopt(await Machine.open(options.stateDir, { ...options, orCopy: true }), (it) => it.close())
  const report = machine.telling(options.report)
  const { unwritable } = machine.state
  if (unwritable !== undefined)
    report({ type: 'warning', text: `${unwritable.message}; nothing of this restore is kept there` })
  const serving = await rememberServing(machine, options)
  await rememberBeside(machine, options.beside ?? [])
  const { image, release, waitMs, listen, mdns, signal, lingerMs, bringUp } = options
  const started = new RestoreNetwork({ machine, serving, release, waitMs, listen, mdns, bringUp, report, signal })
  const network = stack.adopt(started, (it) => it.stop())
  stack.defer(machine.answer(statusMethods({ machine, node: () => network.node })))
  const [startedAt, begun] = [Date.now(), performance.now()]
  const { receipt, manifest } = await restoreDisk({ machine, network, serving }, { ...options, report }, stack).catch(
    async (error: unknown) => {
      // What is wrong is told in any case.
      const ms = Math.round(performance.now() - begun)
      if (unwritable !== undefined) throw error
      const offenders = network.node?.conduct.offenders()
      await keepFailure(machine, { image, release, startedAt, ms, offenders }, error).catch((reason: Error) =>
        report({ type: 'warning', text: `this failure is not recorded: ${reason.message}` }),
      )
      throw error
    },
  )
  options.trusted?.(machine.trust.view(), options.stateDir)
  await runHooks(machine, { ...options, report })
  if (lingerMs !== undefined) await network.linger(manifest, lingerMs)
  return receipt
}

type RestoreDiskOptions = Pick<
  RestoreMachineOptions,
  'image' | 'release' | 'disk' | 'acceptNewDisk' | 'force' | 'lingerMs' | 'report' | 'signal'
>

/**
 * Restores until an attempt succeeds, or none is of use any more. What this has opened for writing is closed when it returns: the
 * boot that follows may mount the disk. What goes on being served is opened until the `outer` stack ends.
 */
async function restoreDisk(
  { machine, network, serving }: { machine: Machine; network: RestoreNetwork; serving: ServingConfig },
  { image, release, disk, acceptNewDisk = false, force, lingerMs, report, signal }: RestoreDiskOptions,
  outer: AsyncDisposableStack,
): Promise<{ receipt: RestoreResult; manifest: VerifiedManifest }> {
  await using stack = new AsyncDisposableStack()
  const given = disk === undefined ? undefined : resolve(disk)
  const chosen = await chooseDisk(machine.config, { given, acceptNew: acceptNewDisk, report })
  const { path } = chosen
  machine.useDisk(path)
  const wanted = machine.manifest(image, release)
  const use = { to: 'write', force, ours: [logLockFile(machine.state.directory)] } as const
  // A monitor of ours holds the device; that it runs is said by whoever wants the lock of its log.
  const { byOurs } = await assertUnused(path, use)
  const opened = await openDevice(path, { writable: true, alone: !force && !byOurs })
  const device = stack.adopt(opened, (it) => it.close())
  const pool = stack.adopt(new HashPool({ here: true }), (it) => it.close())
  const trees = new TreeStore(await machine.home.subdirectory('trees'))
  const choice = await ReleaseChoice.make(wanted, release !== undefined, { machine, trees, network, report })
  for (;;) {
    try {
      const { manifest, mayStay } = choice
      const parts = { machine, device, pool, trees, network, serving, mayStay, report, signal }
      const assertAlone = async (): Promise<void> => void (await assertUnused(path, { ...use, held: true }))
      const receipt = await restoreRelease(manifest, { ...parts, assertAlone })
      await rememberDisk(machine.state, chosen, { given, report }).catch(unrecorded('what it is known by', report))
      report({ type: 'receipt', receipt })
      if (lingerMs !== undefined) await network.keepOffering({ manifest, path, whole: true }, pool, outer)
      return { receipt, manifest }
    } catch (error) {
      await choice.afterFailure(error)
    } finally {
      network.withdraw()
    }
  }
}

/** Runs the hooks. With a monitor the monitor runs them: without one there is no log that their writes belong into. */
async function runHooks(
  machine: Machine,
  { hooks, hooked, report, signal }: Pick<RestoreMachineOptions, 'hooks' | 'hooked' | 'report' | 'signal'>,
): Promise<void> {
  const stateDir = machine.state.directory
  if (hooks === undefined || (await readLogConfig(stateDir)) !== undefined) return
  const path = machine.diskPath
  const flush = async (): Promise<void> => {
    const device = await openDevice(path, { writable: true })
    await device.flush().finally(() => device.close())
  }
  const done = await runMachineHooks({ stateDir, hooks, place: { MESH_DEVICE: path }, flush, signal, report })
  if (done !== undefined) hooked?.(done)
}
