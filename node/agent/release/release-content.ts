import { resolve } from 'node:path'
import { MeshError } from '../../../protocol/errors.ts'
import type { RangeSet } from '../../../protocol/ranges.ts'
import { type DiskContent, readDiskContent } from '../../disk/disk-content.ts'
import { diskFacts } from '../../disk/disk-facts.ts'
import { openDevice } from '../../disk/file-device.ts'
import { HashPool } from '../../disk/hash-pool.ts'
import type { ReportProgress } from '../../disk/progress.ts'
import { scanDisk } from '../../restore/scan.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { buildTree } from '../../store/build-tree.ts'
import { copyDisk, dropCopy, keepCopy } from '../../store/copy-disk.ts'
import type { TreeFacts } from '../../store/tree-file.ts'
import type { TreeStore } from '../../store/tree-store.ts'
import type { AgentEvent } from '../machine/events.ts'

/** What {@link readContent} reads, and how. */
interface ContentPlan {
  readonly disk: string
  /** Bytes of the disk, and of a block. */
  readonly size: number
  readonly blockSize: number
  readonly preserve: RangeSet
  /** Where the hash tree is kept. */
  readonly trees: TreeStore
  /** Where a copy is made, which is then served instead of the disk. */
  readonly copyTo?: string | undefined
  /** Take what was read although the disk changed meanwhile. */
  readonly force: boolean
  readonly report: (event: AgentEvent) => void
  readonly signal: AbortSignal
}

/** The content of a disk, hashed. */
export interface ReleaseContent {
  readonly tree: TreeFacts
  /** What was found on the disk. */
  readonly found: DiskContent
  /** Gives a copy its name. Returns the path from which the content is served. */
  keep(): Promise<string>
  /** Removes a copy that is not to be served. */
  drop(): Promise<void>
}

/** Path of the master's own copy of an image. */
export async function copyPath(state: StateDirectory, image: string): Promise<string> {
  await state.subdirectory('copies')
  return state.path('copies', `${image.replaceAll('/', '+')}.img`)
}

/**
 * Hashes a disk, or a copy that it makes of the disk, and proves that the disk did not change meanwhile: else the release would
 * be one that the disk has never held.
 * Errors: DISK_CHANGED, DISK_FULL, INTERRUPTED, and those of the disk.
 */
export async function readContent(plan: ContentPlan): Promise<ReleaseContent> {
  const pool = new HashPool({ here: true })
  try {
    return plan.copyTo === undefined ? await readDisk(plan, pool) : await readCopy(plan, plan.copyTo, pool)
  } finally {
    await pool.close()
  }
}

async function readDisk(plan: ContentPlan, pool: HashPool): Promise<ReleaseContent> {
  const path = resolve(plan.disk)
  const device = await openDevice(path, { writable: false })
  try {
    // What was written before is no change of now, though the kernel may still have it in memory.
    await device.flush()
    const facts = await diskFacts(device)
    const before = await facts.stamp()
    const tree = await hash(plan, path, pool)
    const found = await readDiskContent(device)
    if ((await facts.since(before)).changed !== undefined)
      refuseChanged(`${path} was written while it was hashed`, plan)
    return { tree, found, keep: async () => path, drop: async () => undefined }
  } finally {
    await device.close()
  }
}

/** The copy is compared with the disk once it is hashed, whatever made it. */
async function readCopy(plan: ContentPlan, to: string, pool: HashPool): Promise<ReleaseContent> {
  const disk = resolve(plan.disk)
  plan.report({ type: 'note', text: `copying ${disk} to ${to}` })
  const copy = await copyDisk(disk, to, { progress: progressOf(plan), signal: plan.signal })
  try {
    const tree = await hash(plan, copy.path, pool)
    const found = await contentOf(disk)
    const differ = await differing(plan, tree, disk, pool)
    if (differ > 0) refuseChanged(`${disk} differs in ${differ} blocks from the copy that was made of it`, plan)
    return { tree, found, keep: () => keepCopy(copy), drop: () => dropCopy(copy) }
  } catch (error) {
    await dropCopy(copy)
    throw error
  }
}

async function contentOf(path: string): Promise<DiskContent> {
  const device = await openDevice(path, { writable: false })
  return readDiskContent(device).finally(() => device.close())
}

function hash(plan: ContentPlan, path: string, pool: HashPool): Promise<TreeFacts> {
  return buildTree({ ...plan, path, pool, progress: progressOf(plan) })
}

/** How many blocks of a disk are others than those of a tree. */
async function differing(plan: ContentPlan, facts: TreeFacts, path: string, pool: HashPool): Promise<number> {
  const tree = await plan.trees.open(facts)
  try {
    const progress = progressOf(plan)
    const { dirty } = await scanDisk({ ...plan, pool, path, tree, phase: 'verify', progress })
    return dirty.count
  } finally {
    await tree.close()
  }
}

/** Errors: DISK_CHANGED, unless forced. */
function refuseChanged(text: string, { disk, force, report }: ContentPlan): void {
  if (!force) throw new MeshError('DISK_CHANGED', text, { detail: { path: disk } })
  report({ type: 'warning', text: `${text}; what was read is published all the same (--force)` })
}

function progressOf({ report }: ContentPlan): ReportProgress {
  return (at) => report({ type: 'progress', ...at })
}
