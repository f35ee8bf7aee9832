import { isDeepStrictEqual } from 'node:util'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import type { HashPool } from '../../disk/hash-pool.ts'
import { dropOldBackupTable } from '../../restore/backup-table.ts'
import { restore } from '../../restore/restore.ts'
import type { RestoreResult } from '../../restore/restore-result.ts'
import type { ServingConfig } from '../../state/machine-config.ts'
import type { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { ScanLog } from '../../writelog/scan-log.ts'
import type { WriteLog } from '../../writelog/write-log.ts'
import { readLogConfig } from '../log/log-config.ts'
import { forgetLogDoubt, readLogDoubt, recordLogDoubt } from '../log/log-doubt.ts'
import { openLog } from '../log/open-log.ts'
import { type DiskState, readDiskState, writeDiskState } from '../machine/disk-state.ts'
import type { AgentEvent } from '../machine/events.ts'
import { writeReceiptFile } from '../machine/hooks.ts'
import type { Machine } from '../machine/machine.ts'
import { secureRandom } from '../machine/secure-random.ts'
import { unrecorded } from '../machine/unrecorded.ts'
import { keepReceipt } from '../receipts/own-receipts.ts'
import { TREES_KEPT } from './limits.ts'
import { openBeside } from './local-content.ts'
import type { RestoreNetwork } from './restore-network.ts'
import { RestoreStage } from './restore-stage.ts'

/** What {@link restoreRelease} works with. */
interface RestoreReleaseParts {
  readonly machine: Machine
  /** The managed disk, opened for writing. */
  readonly device: BlockDevice
  readonly pool: HashPool
  readonly trees: TreeStore
  readonly network: RestoreNetwork
  /** What the stage may take of this machine. */
  readonly serving: Pick<ServingConfig, 'stageSpace'>
  /** The disk can stay at the release it holds. */
  readonly mayStay: boolean
  /** Fails if somebody else uses the disk by now. */
  readonly assertAlone: () => Promise<void>
  readonly report: (event: AgentEvent) => void
  readonly signal: AbortSignal
}

/**
 * One restore to one release, from the log's opening to its durable receipt (docs/DURABILITY.md).
 * Errors: those of {@link restore}, of the write log, of the network and of the state directory.
 */
export async function restoreRelease(manifest: VerifiedManifest, parts: RestoreReleaseParts): Promise<RestoreResult> {
  const { state } = parts.machine
  const doubt = await readLogDoubt(state)
  const stage = await RestoreStage.make(manifest, parts)
  // When this returns the log is closed, durably, before anything says that the disk is whole.
  const receipt = await restoreLogged(manifest, parts, { doubt, stage })
  // A virtual machine that was started meanwhile has read some of the old content and some of the new, and may have written.
  if (receipt.blocks.dirty > 0)
    await parts.assertAlone().catch(async (error: Error) => {
      if (state.unwritable === undefined) await recordLogDoubt(state, error.message)
      throw error
    })
  if (state.unwritable === undefined) {
    await record(manifest, parts, receipt).catch(unrecorded('that', parts.report))
    await stage.tidy(parts.trees)
    await forgetTrees(manifest, parts)
  }
  return receipt
}

/** What is durable after a restore. */
async function record(manifest: VerifiedManifest, parts: RestoreReleaseParts, receipt: RestoreResult): Promise<void> {
  const { state } = parts.machine
  const whole: DiskState = { state: 'whole', ...nameOf(manifest) }
  if (!isDeepStrictEqual(await readDiskState(state), whole)) await writeDiskState(state, whole)
  await keepReceipt(parts.machine, receipt)
  await writeReceiptFile(state.directory, receipt)
  // Peers may have cast one since.
  if ((await readLogDoubt(state)) !== undefined) await forgetLogDoubt(state)
}

/** The restore itself, with the log and the other places of content open as long as it takes. */
async function restoreLogged(
  manifest: VerifiedManifest,
  parts: RestoreReleaseParts,
  { doubt, stage }: { readonly doubt: string | undefined; readonly stage: RestoreStage },
): Promise<RestoreResult> {
  await using stack = new AsyncDisposableStack()
  const { machine, device, pool, trees, network, report, signal } = parts
  const log = await logFor(manifest, parts, stack)
  stack.adopt(stage, (it) => it.close())
  const beside = await openBeside(manifest, parts, stack)
  const isLogKept = (await readLogConfig(machine.state.directory)) !== undefined
  const restored = await restore({
    manifest,
    target: { device, log, doubt },
    sources: {
      trees,
      others: machine.trust.view().releases(manifest.image),
      stage,
      beside,
      fetcher: async () => {
        assertWritable(parts, isLogKept)
        return network.fetcher(manifest)
      },
    },
    steps: {
      ...(parts.mayStay ? { beforeMoving: (missing) => network.assertHeld(manifest, missing) } : {}),
      beforeWriting: async (dirtied) => {
        assertWritable(parts, isLogKept)
        await stage.count(dirtied)
        await sayPartial(manifest, parts, { isLogKept, isLogAside: log.source === 'scan' })
      },
      keeping: (dirty, tree) => stage.keeping(dirty, tree),
      serving: (source) => network.offer(source),
      askPeers: () => network.seenReceipts(),
      handOver: () => network.handOver(),
      onLogMiss: (block) => {
        const text = `block ${block} was wrong though the write log called it clean; reading the whole disk`
        report({ type: 'warning', text })
      },
    },
    pool,
    progress: (progress) => report({ type: 'progress', ...progress, ...network.peerCount() }),
    signal,
    names: { machine: machine.config.name, nameOf: (peerId) => machine.nameOf(peerId) },
    random: secureRandom,
  })
  // While the log is open: it goes by what has been written to the disk when it is closed.
  if (restored.verified) await tidyDiskEnd(device, manifest, report)
  return restored
}

async function logFor(
  manifest: VerifiedManifest,
  { machine, device }: RestoreReleaseParts,
  stack: AsyncDisposableStack,
): Promise<WriteLog> {
  const { directory, unwritable } = machine.state
  if (unwritable !== undefined) return new ScanLog('nothing can be written to the state directory')
  return openLog(directory, device, manifest, stack)
}

/** Says durably that the disk is about to change. Errors: DISK_FULL, DISK_IO. */
async function sayPartial(
  manifest: VerifiedManifest,
  parts: RestoreReleaseParts,
  { isLogKept, isLogAside }: { readonly isLogKept: boolean; readonly isLogAside: boolean },
): Promise<void> {
  const { state } = parts.machine
  // This restore scans because the log cannot be had now. The next one may find the log again, and must not go by it if this one is cut off.
  if (isLogKept && isLogAside) await recordLogDoubt(state, 'a restore without the log was cut off')
  await writeDiskState(state, { state: 'partial', ...nameOf(manifest) }).catch((error: unknown) => {
    if (isLogKept || !isMeshError(error, 'DISK_FULL')) throw error
    parts.report({ type: 'warning', text: `${error.message}; the disk is restored all the same` })
  })
}

/**
 * Refuses to change the disk if nothing can be written to the state directory. A directory that is full is no hindrance where no log
 * is kept: every restore scans, and goes by nothing that this one would have to say. Errors: STATE_UNWRITABLE, DISK_FULL.
 */
function assertWritable({ machine, device }: RestoreReleaseParts, isLogKept: boolean): void {
  const { unwritable } = machine.state
  if (unwritable === undefined || (unwritable.code === 'DISK_FULL' && !isLogKept)) return
  const text = `${device.path} is not what it is to be, and is not restored: ${unwritable.message}`
  throw new MeshError(unwritable.code, text, { detail: unwritable.detail, cause: unwritable })
}

/** The old backup of a table is no part of the image, so it is told of when it is taken away. */
async function tidyDiskEnd(
  device: BlockDevice,
  manifest: VerifiedManifest,
  report: (event: AgentEvent) => void,
): Promise<void> {
  const at = await dropOldBackupTable(device, manifest).catch((error: unknown) => {
    if (!isMeshError(error)) throw error
    const text = `the end of ${device.path}, behind the image, could not be looked at: ${error.message}`
    report({ type: 'warning', text })
  })
  if (at === undefined) return
  const text = `the backup of another partition table (GPT) stood at the end of ${device.path}, at byte ${at}; it was overwritten, because repair tools would have brought its partitions back`
  report({ type: 'note', text })
}

/** Which release it is, as the state of the disk names it. */
function nameOf({ image, release, root }: VerifiedManifest): Omit<DiskState, 'state'> {
  return { image, release, root: toHex(root) }
}

/** Removes the hash trees of old releases, which would pile up, one a release. The master keeps all of them. */
async function forgetTrees(manifest: VerifiedManifest, { machine, trees }: RestoreReleaseParts): Promise<void> {
  if (machine.config.role === 'master') return
  const view = machine.trust.view()
  await trees.collect([manifest, ...view.images.flatMap((image) => view.releases(image).slice(-TREES_KEPT))])
}
