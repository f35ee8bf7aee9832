import { isDeepStrictEqual } from 'node:util'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import type { HashPool } from '../../disk/hash-pool.ts'
import { dropOldBackupTable } from '../../restore/backup-table.ts'
import { restore } from '../../restore/restore.ts'
import type { RestoreResult } from '../../restore/restore-result.ts'
import type { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { readLogConfig } from '../log/log-config.ts'
import { forgetLogDoubt, readLogDoubt, recordLogDoubt } from '../log/log-doubt.ts'
import { openLog } from '../log/open-log.ts'
import { type DiskState, readDiskState, writeDiskState } from '../machine/disk-state.ts'
import type { AgentEvent } from '../machine/events.ts'
import { writeReceiptFile } from '../machine/hooks.ts'
import type { Machine } from '../machine/machine.ts'
import { secureRandom } from '../machine/secure-random.ts'
import { keepReceipt } from '../receipts/own-receipts.ts'
import { TREES_KEPT } from './limits.ts'
import { emptyStage, openBeside, openStage } from './local-content.ts'
import type { RestoreNetwork } from './restore-network.ts'

/** What {@link restoreRelease} works with. */
interface RestoreReleaseParts {
  readonly machine: Machine
  /** The managed disk, opened for writing. */
  readonly device: BlockDevice
  readonly pool: HashPool
  readonly trees: TreeStore
  readonly network: RestoreNetwork
  /** The disk can stay at the release it holds. */
  readonly mayStay: boolean
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
  // When this returns the log is closed, durably, before anything says that the disk is whole.
  const receipt = await restoreLogged(manifest, parts, doubt)
  const whole: DiskState = { state: 'whole', ...nameOf(manifest) }
  if (!isDeepStrictEqual(await readDiskState(state), whole)) await writeDiskState(state, whole)
  await keepReceipt(parts.machine, receipt)
  await writeReceiptFile(state.directory, receipt)
  // Peers may have cast one since.
  if ((await readLogDoubt(state)) !== undefined) await forgetLogDoubt(state)
  await emptyStage(manifest, parts)
  await forgetTrees(manifest, parts)
  return receipt
}

/** The restore itself, with the log and the other places of content open as long as it takes. */
async function restoreLogged(
  manifest: VerifiedManifest,
  parts: RestoreReleaseParts,
  doubt: string | undefined,
): Promise<RestoreResult> {
  await using stack = new AsyncDisposableStack()
  const { machine, device, pool, trees, network, report, signal } = parts
  const { directory } = machine.state
  const log = await openLog(directory, device, manifest, stack)
  const stage = await openStage(manifest, parts, stack)
  const beside = await openBeside(manifest, parts, stack)
  // This restore scans because the log cannot be had now. The next one may find the log again.
  const isLogAside = log.source === 'scan' && (await readLogConfig(directory)) !== undefined
  const restored = await restore({
    manifest,
    target: { device, log, doubt },
    sources: {
      trees,
      others: machine.trust.view().releases(manifest.image),
      stage,
      beside,
      fetcher: () => network.fetcher(manifest),
    },
    steps: {
      ...(parts.mayStay ? { beforeMoving: (missing) => network.assertHeld(manifest, missing) } : {}),
      beforeWriting: async () => {
        // The next restore must not go by that log if this one is cut off.
        if (isLogAside) await recordLogDoubt(machine.state, 'a restore without the log was cut off')
        await writeDiskState(machine.state, { state: 'partial', ...nameOf(manifest) })
      },
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
