import { type Digest, sameBytes, toHex, zeroDigest } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { isNoDigest } from '../../../protocol/hash-tree.ts'
import { changedBlocks } from '../../store/changed-blocks.ts'
import { LocationIndex } from '../../store/location-index.ts'
import type { TreeFile } from '../../store/tree-file.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { askLive } from '../answer/ask-live.ts'
import { type DiskState, readDiskState } from '../machine/disk-state.ts'
import type { StagingStatus } from '../machine/events.ts'
import { Machine } from '../machine/machine.ts'

/** What a release changed. */
interface ReleaseDifference {
  /** Blocks that are other ones than in the release before, and their bytes. */
  readonly blocks: number
  readonly bytes: number
  /** Of these, contents that the release before has nowhere, and that are not zeros: what has to travel. */
  readonly newBlocks: number
  readonly newBytes: number
}

/** One line of `mesh releases`. */
export interface ReleaseStatus {
  readonly release: number
  readonly label: string
  /** ISO 8601. */
  readonly time: string
  readonly size: number
  /** Hexadecimal. */
  readonly root: string
  /** Null for the first release, and where one of the two hash trees is not on this machine. */
  readonly difference: ReleaseDifference | null
  readonly onDisk: boolean
  readonly staged?: StagingStatus
}

/** Result of `mesh releases`. */
export interface Releases {
  readonly event: 'releases'
  readonly image: string
  readonly releases: readonly ReleaseStatus[]
}

/**
 * The releases of an image (default: this machine's), oldest first. Differences are found from the hash trees that are here:
 * the master has all of them, a machine those it has restored or staged lately. Errors: IMAGE_UNKNOWN, STATE_MISSING.
 */
export async function releases(stateDir: string, image?: string): Promise<Releases> {
  const { machine, disk, staging } = await readFacts(stateDir)
  const { image: name } = machine.manifest(image)
  const trees = new TreeStore(machine.home.path('trees'))
  const list: ReleaseStatus[] = []
  let before: VerifiedManifest | undefined
  for (const manifest of machine.trust.view().releases(name)) {
    const { release, label, time, size, root } = manifest
    const staged = disk?.image === name && staging?.release === release ? staging : undefined
    list.push({
      release,
      label,
      time,
      size,
      root: toHex(root),
      difference: before === undefined ? null : await differenceOf(before, manifest, trees),
      onDisk: disk?.image === name && disk.state === 'whole' && disk.release === release,
      ...(staged === undefined ? {} : { staged }),
    })
    before = manifest
  }
  return { event: 'releases', image: name, releases: list }
}

/** The machine, what its disk holds, and what is staged: nobody else is kept from the state directory while trees are compared. */
async function readFacts(
  stateDir: string,
): Promise<{ machine: Machine; disk?: DiskState | undefined; staging?: StagingStatus | undefined }> {
  const machine = await Machine.read(stateDir)
  try {
    const live = machine.holder === undefined ? undefined : await askLive(stateDir)
    return { machine, disk: await readDiskState(machine.state), staging: live?.staging }
  } finally {
    await machine.close()
  }
}

async function differenceOf(
  before: VerifiedManifest,
  after: VerifiedManifest,
  trees: TreeStore,
): Promise<ReleaseDifference | null> {
  if (!(await trees.has(before)) || !(await trees.has(after))) return null
  const [from, to] = await Promise.all([trees.open(before), trees.open(after)])
  try {
    return await measure(from, to)
  } catch (error) {
    if (isMeshError(error, 'TREE_CORRUPT')) return null
    throw error
  } finally {
    await Promise.all([from.close(), to.close()])
  }
}

async function measure(from: TreeFile, to: TreeFile): Promise<ReleaseDifference> {
  const { blockSize, blockCount, size } = to.geometry
  const changed = await changedBlocks(from, to)
  const known = from.geometry.blockSize === blockSize ? await LocationIndex.build(from) : undefined
  const fresh = new Set<string>()
  for (const index of changed.values()) {
    const digest = Uint8Array.from(await to.leaf(index))
    if (hasNoContent(digest, blockSize) || (known !== undefined && (await isIn(known, digest)))) continue
    fresh.add(toHex(digest))
  }
  // The last block may be cut short.
  const tail = changed.has(blockCount - 1) ? blockCount * blockSize - size : 0
  const bytes = changed.count * blockSize - tail
  return { blocks: changed.count, bytes, newBlocks: fresh.size, newBytes: fresh.size * blockSize }
}

/** Zeros, which never travel, and preserved blocks. */
export function hasNoContent(digest: Digest, blockSize: number): boolean {
  return isNoDigest(digest) || sameBytes(digest, zeroDigest(blockSize))
}

async function isIn(index: LocationIndex, digest: Digest): Promise<boolean> {
  for await (const _ of index.find(digest)) return true
  return false
}
