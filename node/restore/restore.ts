import { pipe } from 'it-pipe'
import { Bitmap } from '../../protocol/bitmap.ts'
import { toHex } from '../../protocol/digest.ts'
import { MeshError } from '../../protocol/errors.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import type { HashPool } from '../disk/hash-pool.ts'
import { ImageDisk } from '../disk/image-disk.ts'
import { DiskSource } from '../store/disk-source.ts'
import { LocationIndex } from '../store/location-index.ts'
import type { TreeFile } from '../store/tree-file.ts'
import type { TreeStore } from '../store/tree-store.ts'
import type { VerifiedManifest } from '../trust/verified-manifest.ts'
import type { LogState, WriteLog } from '../writelog/write-log.ts'
import type { BlockFetcher } from './block-fetcher.ts'
import { BlockProvider } from './block-provider.ts'
import { inBatches, writeBatches } from './block-writer.ts'
import type { ReportProgress } from './progress.ts'
import type { Receipt, ReceiptPeer } from './receipt.ts'
import { DisplacedBlocks, scanDisk } from './scan.ts'
import { ensureTree } from './tree-fetch.ts'
import { assertLargeEnough } from './verify.ts'

export interface RestoreOptions {
  /** Opened for writing. */
  readonly device: BlockDevice
  readonly manifest: VerifiedManifest
  readonly trees: TreeStore
  readonly log: WriteLog
  readonly pool: HashPool
  /** Called when something has to come from peers; a restore that needs nothing never touches the network. */
  readonly fetcher: () => Promise<BlockFetcher>
  /** Called before the first byte is written to the disk; must be durable when it resolves. */
  readonly beforeWriting: () => Promise<void>
  /** Called when verified blocks of this disk can be served to others, which ends with the restore. */
  readonly serving?: (source: DiskSource) => void
  readonly progress: ReportProgress
  readonly signal: AbortSignal
  /** Name of this machine and of a peer, for the receipt. */
  readonly machine: string
  readonly nameOf: (peerId: string) => string
  readonly now?: () => number
}

/**
 * Brings a disk back to a release: which blocks → where from → fetch → verify → write → flush → checkpoint.
 * Killed at any moment, it is simply run again. Errors: DISK_TOO_SMALL (nothing changed), DISK_IO, BLOCKS_UNAVAILABLE,
 * PEERS_UNREACHABLE, INTERRUPTED; what was fetched until then is written, flushed and checkpointed.
 */
export async function restore(options: RestoreOptions): Promise<Receipt> {
  const { device, manifest, now = Date.now } = options
  const startedAt = now()
  assertLargeEnough(device, manifest)
  const logState = await options.log.open()
  const { tree, received: treeBytes } = await ensureTree({ ...options, facts: manifest })
  try {
    const disk = new ImageDisk(device, manifest)
    const found = await findDirty(options, logState, tree)
    const dirtyCount = found.dirty.count
    const source = new DiskSource({ disk, tree, held: heldBlocks(found.dirty, manifest) })
    const provider = new BlockProvider({
      disk,
      tree,
      dirty: found.dirty,
      displaced: found.displaced,
      locations: dirtyCount === 0 ? undefined : await LocationIndex.build(tree),
      fetcher: options.fetcher,
      signal: options.signal,
    })
    if (dirtyCount > 0) {
      await options.beforeWriting()
      options.serving?.(source)
    }
    const report = (): void => {
      const doneBytes = (dirtyCount - found.dirty.count) * manifest.blockSize
      options.progress({ phase: 'restore', doneBytes, totalBytes: dirtyCount * manifest.blockSize })
    }
    await pipe(
      () => provider.blocks(),
      (blocks) => inBatches(blocks, manifest.blockSize),
      (batches) => writeBatches(batches, { disk, log: options.log, dirty: found.dirty, source, report }),
    )
    if (options.signal.aborted) throw new MeshError('INTERRUPTED', `the restore of ${device.path} was interrupted`)
    const { local, zero, fetched } = provider.counts
    return {
      event: 'receipt',
      verified: found.dirty.count === 0,
      image: manifest.image,
      release: manifest.release,
      root: toHex(manifest.root),
      blocks: { total: tree.geometry.blockCount, dirty: dirtyCount, local, zero, fetched },
      bytes: {
        read: found.bytesRead + disk.bytesRead,
        written: disk.bytesWritten,
        received: treeBytes + provider.bytesReceived,
      },
      peers: await listPeers(options, provider),
      log: {
        source: options.log.source,
        state: logState.state,
        reason: logState.state === 'unknown' ? logState.reason : '',
      },
      seconds: (now() - startedAt) / 1000,
      machine: options.machine,
      startedAt: new Date(startedAt).toISOString(),
      beyondImage: device.size - manifest.size,
    }
  } finally {
    await tree.close()
  }
}

interface Dirt {
  readonly dirty: Bitmap
  readonly displaced: DisplacedBlocks
  readonly bytesRead: number
}

/** The blocks that may differ: from the log if it can be believed, else by a scan. */
async function findDirty(options: RestoreOptions, logState: LogState, tree: TreeFile): Promise<Dirt> {
  const { manifest, log, device } = options
  if (logState.state === 'unknown') {
    return scanDisk({ ...options, path: device.path, tree, preserve: manifest.preserve, phase: 'scan' })
  }
  const dirty = new Bitmap(tree.geometry.blockCount)
  const perBlock = manifest.blockSize / log.granuleSize
  for (const [start, end] of (await log.dirty()).runs()) {
    const last = Math.min(Math.ceil(end / perBlock), dirty.length)
    if (start / perBlock < last) dirty.setRange(Math.floor(start / perBlock), last)
  }
  for (const [start, end] of manifest.preserve.runs()) dirty.clearRange(start, end)
  return { dirty, displaced: new DisplacedBlocks(), bytesRead: 0 }
}

function heldBlocks(dirty: Bitmap, manifest: VerifiedManifest): Bitmap {
  const held = new Bitmap(dirty.length)
  held.setRange(0, held.length)
  for (const set of [dirty.toRanges(), manifest.preserve])
    for (const [start, end] of set.runs()) held.clearRange(start, end)
  return held
}

async function listPeers(options: RestoreOptions, provider: BlockProvider): Promise<ReceiptPeer[]> {
  const peers = new Map<string, ReceiptPeer>()
  for (const [id, { blocks, bytes }] of provider.deliveredBy) {
    peers.set(id, { id, name: options.nameOf(id), blocks, bytes, bad: 0 })
  }
  for (const { id, bad } of provider.ledger()) {
    const known = peers.get(id) ?? { id, name: options.nameOf(id), blocks: 0, bytes: 0 }
    if (bad > 0) peers.set(id, { ...known, bad })
  }
  return [...peers.values()]
}
