import { isDeepStrictEqual } from 'node:util'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import { openDevice } from '../../disk/file-device.ts'
import { HashPool } from '../../disk/hash-pool.ts'
import { assertNotMounted } from '../../disk/mounts.ts'
import type { Receipt } from '../../restore/receipt.ts'
import { restore } from '../../restore/restore.ts'
import { Stage } from '../../store/stage.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { readLogConfig } from '../log/log-config.ts'
import { forgetLogDoubt, readLogDoubt, recordLogDoubt } from '../log/log-doubt.ts'
import { openWriteLog } from '../log/open-log.ts'
import { readDiskState, writeDiskState } from '../machine/disk-state.ts'
import { type HookOptions, type HooksReport, runMachineHooks, writeReceiptFile } from '../machine/hooks.ts'
import { Machine } from '../machine/machine.ts'
import { secureRandom } from '../machine/secure-random.ts'
import { rememberBeside, rememberServing } from '../machine/settings.ts'
import { keepFailure, keepReceipt } from '../receipts/own-receipts.ts'
import { TREES_KEPT } from './limits.ts'
import { OtherDisks } from './other-disks.ts'
import { ReleaseSuperseded, ReleaseUnavailable, RestoreNetwork, type RestoreNetworkOptions } from './restore-network.ts'

export interface RestoreMachineOptions extends RestoreNetworkOptions {
  /** Default: the image of this machine. */
  readonly image?: string
  readonly force: boolean
  /** State directories of the other managed disks of this computer. */
  readonly beside?: readonly string[]
  /** How long to serve the others at most once the disk is restored; default: not at all. */
  readonly lingerMs?: number
  /** Run at the end, unless a monitor is set up, which runs them. */
  readonly hooks?: HookOptions
  readonly hooked?: (report: HooksReport) => void
}

/**
 * `mesh restore`: brings this machine's disk to the newest release it trusts. The network is used only if something has
 * to be fetched; then newer metadata is looked for first, and a newer release wins.
 */
export async function restoreMachine(options: RestoreMachineOptions): Promise<Receipt> {
  await using stack = new AsyncDisposableStack()
  const machine = stack.adopt(await Machine.open(options.stateDir, { configured: options.configured }), (it) =>
    it.close(),
  )
  const serving = await rememberServing(machine, options)
  await rememberBeside(machine, options.beside ?? [])
  const network = stack.adopt(new RestoreNetwork(machine, options, serving), (it) => it.stop())
  // What this has opened for writing is closed when it returns: the boot that follows may mount it.
  const startedAt = Date.now()
  const { receipt, manifest } = await restoreDisk(machine, network, options, stack).catch(async (error: unknown) => {
    // What is wrong is told in any case.
    await keepFailure(machine, { ...options, startedAt }, error).catch((reason: Error) =>
      options.report({ type: 'warning', text: `this failure is not recorded: ${reason.message}` }),
    )
    throw error
  })
  await runHooks(machine, options)
  if (options.lingerMs !== undefined) await network.linger(manifest, options.lingerMs)
  return receipt
}

/** Without a monitor there is no log that the hooks' writes belong into: the next restore scans anyway. */
async function runHooks(machine: Machine, options: RestoreMachineOptions): Promise<void> {
  const { stateDir, hooks, signal, report } = options
  if (hooks === undefined || (await readLogConfig(stateDir)) !== undefined) return
  const path = machine.diskPath
  const flush = async (): Promise<void> => {
    const device = await openDevice(path, { writable: true })
    await device.flush().finally(() => device.close())
  }
  const done = await runMachineHooks({ stateDir, hooks, place: { MESH_DEVICE: path }, flush, signal, report })
  if (done !== undefined) options.hooked?.(done)
}

interface Restored {
  readonly receipt: Receipt
  readonly manifest: VerifiedManifest
}

/** What goes on being served is opened until the `outer` stack ends. */
async function restoreDisk(
  machine: Machine,
  network: RestoreNetwork,
  options: RestoreMachineOptions,
  outer: AsyncDisposableStack,
): Promise<Restored> {
  await using stack = new AsyncDisposableStack()
  const path = machine.diskPath
  const first = machine.manifest(options.image, options.release)
  await assertNotMounted(path, options)
  const device = stack.adopt(await openDevice(path, { writable: true }), (it) => it.close())
  const pool = stack.adopt(new HashPool({ here: true }), (it) => it.close())
  const trees = new TreeStore(await machine.state.subdirectory('trees'))
  let treeRefetched = false
  let older = options.release === undefined ? await olderOnDisk(machine, first) : undefined
  for (let manifest = first; ; ) {
    try {
      const parts = { machine, device, pool, trees, network, options, mayStay: older !== undefined }
      const receipt = await restoreTo(manifest, parts)
      options.report({ type: 'receipt', receipt })
      if (options.lingerMs !== undefined) await network.keepOffering({ manifest, path, whole: true }, pool, outer)
      return { receipt, manifest }
    } catch (error) {
      if (error instanceof ReleaseSuperseded) {
        options.report({ type: 'note', text: `release ${manifest.release} is superseded; restoring the newest one` })
        manifest = machine.manifest(options.image)
      } else if (isMeshError(error, 'TREE_CORRUPT') && !treeRefetched) {
        options.report({ type: 'warning', text: `${error.message}; fetching the hash tree again` })
        treeRefetched = true
        await trees.remove(manifest)
      } else if (older !== undefined && isOutOfReach(error) && (await isStillOn(machine, older))) {
        const { release } = manifest
        const text = `release ${release} cannot be had now: ${error.message}; restoring release ${older.release}, which is on the disk`
        options.report({ type: 'warning', text })
        network.keepToOlder()
        manifest = older
        older = undefined
      } else throw error
    } finally {
      network.withdraw()
    }
  }
}

/** The release that the disk holds, whole, if that is another one than is wanted. */
async function olderOnDisk(machine: Machine, { image, root }: VerifiedManifest): Promise<VerifiedManifest | undefined> {
  const disk = await readDiskState(machine.state)
  if (disk?.state !== 'whole' || disk.image !== image || disk.root === toHex(root)) return undefined
  const known = machine.trust.view().release(image, disk.release)
  return known !== undefined && toHex(known.root) === disk.root ? known : undefined
}

/** Nothing has been written towards another release. */
async function isStillOn(machine: Machine, { root }: VerifiedManifest): Promise<boolean> {
  const disk = await readDiskState(machine.state)
  return disk?.state === 'whole' && disk.root === toHex(root)
}

function isOutOfReach(error: unknown): error is Error {
  return error instanceof ReleaseUnavailable || isMeshError(error, 'PEERS_UNREACHABLE', 'BLOCKS_UNAVAILABLE')
}

interface RestoreParts {
  readonly machine: Machine
  readonly device: BlockDevice
  readonly pool: HashPool
  readonly trees: TreeStore
  readonly network: RestoreNetwork
  readonly options: RestoreMachineOptions
  /** The disk can stay at the release it holds. */
  readonly mayStay: boolean
}

/** One restore to one release, from the log's opening to its durable receipt. */
async function restoreTo(manifest: VerifiedManifest, parts: RestoreParts): Promise<Receipt> {
  const { machine, device, pool, trees, network, options } = parts
  const { image, release } = manifest
  const state = { image, release, root: toHex(manifest.root) }
  const doubt = await readLogDoubt(machine.state)
  // A log that cannot be had now may be back for the next restore, which must not go by it if this one is cut off.
  let aside = false
  let receipt: Receipt
  {
    await using stack = new AsyncDisposableStack()
    const log = await openWriteLog(options.stateDir, device, manifest, stack)
    const stage = await openStage(manifest, parts, stack)
    const beside = await openBeside(manifest, parts, stack)
    aside = log.source === 'scan' && (await readLogConfig(options.stateDir)) !== undefined
    receipt = await restore({
      device,
      manifest,
      trees,
      others: machine.trust.view().releases(image),
      stage,
      beside,
      log,
      ...(doubt === undefined ? {} : { doubt }),
      pool,
      fetcher: () => network.fetcher(manifest),
      handOver: () => network.handOver(),
      ...(parts.mayStay ? { beforeMoving: (missing) => network.assertHeld(manifest, missing) } : {}),
      beforeWriting: async () => {
        if (aside) await recordLogDoubt(machine.state, 'a restore without the log was cut off')
        await writeDiskState(machine.state, { state: 'partial', ...state })
      },
      serving: (source) => network.offer(source),
      onLogMiss: (block) => {
        const text = `block ${block} was wrong though the write log called it clean; reading the whole disk`
        options.report({ type: 'warning', text })
      },
      progress: (progress) => options.report({ type: 'progress', ...progress, ...network.peerCount() }),
      signal: options.signal,
      machine: machine.config.name,
      nameOf: (peerId) => machine.nameOf(peerId),
      random: secureRandom,
    })
    // The log is closed, durably, before anything says that the disk is whole.
  }
  if (!isDeepStrictEqual(await readDiskState(machine.state), { state: 'whole', ...state }))
    await writeDiskState(machine.state, { state: 'whole', ...state })
  await keepReceipt(machine, receipt)
  await writeReceiptFile(options.stateDir, receipt)
  if (doubt !== undefined || aside) await forgetLogDoubt(machine.state)
  await emptyStage(manifest, parts)
  await forgetTrees(manifest, parts)
  return receipt
}

/** Hash trees would pile up, one a release. The master keeps all of them. */
async function forgetTrees(manifest: VerifiedManifest, { machine, trees }: RestoreParts): Promise<void> {
  if (machine.config.role === 'master') return
  const view = machine.trust.view()
  await trees.collect([manifest, ...view.images.flatMap((image) => view.releases(image).slice(-TREES_KEPT))])
}

/** What was fetched ahead, if this is another release than the disk had; without it a restore does as well. */
async function openStage(
  { root, blockSize }: VerifiedManifest,
  { machine, options }: RestoreParts,
  stack: AsyncDisposableStack,
): Promise<Stage | undefined> {
  try {
    const stage = await Stage.openIfThere(machine.state.path('stage'), blockSize)
    if (stage === undefined) return undefined
    stack.adopt(stage, (it) => it.close())
    const onDisk = await readDiskState(machine.state)
    return stage.count > 0 || onDisk?.root !== toHex(root) ? stage : undefined
  } catch (error) {
    if (!isMeshError(error)) throw error
    options.report({ type: 'warning', text: `what was staged cannot be used: ${error.message}` })
    return undefined
  }
}

async function openBeside(
  { blockSize }: VerifiedManifest,
  { machine, options }: RestoreParts,
  stack: AsyncDisposableStack,
): Promise<OtherDisks | undefined> {
  const directories = (machine.state.machine ?? machine.config).beside
  return directories && OtherDisks.open(directories, blockSize, options.report, stack)
}

/** The disk durably holds the release: nothing that was staged for it is needed any more. */
async function emptyStage(manifest: VerifiedManifest, { machine, options }: RestoreParts): Promise<void> {
  if (machine.trust.view().newest(manifest.image)?.release !== manifest.release) return
  try {
    const stage = await Stage.openIfThere(machine.state.path('stage'), manifest.blockSize)
    if (stage === undefined) return
    await (stage.count > 0 ? stage.retain(() => false) : undefined)
    await stage.close()
  } catch (error) {
    if (!isMeshError(error)) throw error
    options.report({ type: 'warning', text: `the stage was not emptied: ${error.message}` })
  }
}
