import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Bitmap } from '../../../protocol/bitmap.ts'
import { MAX_OPERATE_BYTES, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { type Digest, toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { anyText, type Check, list, literal, natural, nullable, object, text } from '../../../protocol/json-shape.ts'
import { callControl } from '../../control/control-client.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import { LocationIndex } from '../../store/location-index.ts'
import type { TreeFile } from '../../store/tree-file.ts'
import type { TreeStore } from '../../store/tree-store.ts'
import type { SiteSigner } from '../../trust/site-signer.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { AgentEvent, ReleaseChange } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { requireMaster } from '../machine/require-master.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { bringTrees } from './bring-trees.ts'
import { clockDoubts, clockEvidence } from './clock-doubts.ts'
import { LOOKED_UP_AT_ONCE } from './limits.ts'
import { lossDoubts, settleDoubts } from './publish-doubts.ts'
import { blockChange } from './release-change.ts'
import { recallRelease } from './release-memory.ts'
import { hasNoContent } from './releases.ts'
import { changeOf } from './weigh-release.ts'

/** Result of `mesh rollback`. */
interface RolledBack {
  /** `would-roll-back`: with `dryRun`. */
  readonly event: 'rolled-back' | 'would-roll-back'
  readonly image: string
  /** The new release, and the earlier one whose content it has. */
  readonly release: number
  readonly content: number
  /** Hexadecimal. */
  readonly root: string
  readonly blocks: {
    readonly total: number
    /** Blocks that are not on the master's disk any more. */
    readonly notHere: number
    /** Blocks that no machine is known to have that can be reached now. */
    readonly nowhere: number
  }
  /** What it changes. */
  readonly change: ReleaseChange
  /** Warnings: what was published in spite of, because it was forced. */
  readonly warnings: readonly string[]
}

/** Which earlier release is to be published again. */
interface RollbackRequest {
  readonly release: number
  readonly image?: string
  /** Default: says which release it is. */
  readonly label?: string
  /** Publish although some blocks cannot be had now, or the release may be a mistake. */
  readonly force: boolean
  /** Publish nothing, only say what would change. */
  readonly dryRun: boolean
  /** Private keys, as text, that sign besides those on the master. */
  readonly lent?: readonly string[]
}

/** What a command of another version tells of a change must be this. */
export const isReleaseChange: Check<ReleaseChange> = object({
  image: text(MAX_TEXT_BYTES),
  release: natural(),
  size: natural(),
  sizeBefore: nullable(natural()),
  blocks: nullable(
    object({ total: natural(), changed: natural(), filled: natural(), zeroed: natural(), lost: natural() }),
  ),
  content: nullable(anyText(MAX_OPERATE_BYTES)),
  contentBefore: nullable(anyText(MAX_OPERATE_BYTES)),
})
const isRolledBack: Check<RolledBack> = object({
  event: literal('rolled-back', 'would-roll-back'),
  image: text(MAX_TEXT_BYTES),
  release: natural(),
  content: natural(),
  root: text(MAX_TEXT_BYTES),
  blocks: object({ total: natural(), notHere: natural(), nowhere: natural() }),
  change: isReleaseChange,
  warnings: list(anyText(MAX_OPERATE_BYTES), 1),
})

/** Asks the running master. Errors: those of {@link publishEarlier}, STATE_NOT_RUNNING, STATE_NOT_MASTER, STATE_BUSY. */
export async function rollback(stateDir: string, request: RollbackRequest): Promise<RolledBack> {
  await requireMaster(stateDir)
  return callControl(stateDir, 'rollback', isRolledBack, { ...request })
}

/** The request of {@link rollback} as the control socket delivers it. */
export function rollbackRequest(params: Readonly<Record<string, unknown>>): RollbackRequest {
  const { release, force, dryRun, image, label } = params
  return {
    release: Number(release),
    force: force === true,
    dryRun: dryRun === true,
    ...(typeof image === 'string' ? { image } : {}),
    ...(typeof label === 'string' ? { label } : {}),
  }
}

/**
 * Publishes the content of an earlier release as the next one. Errors: IMAGE_UNKNOWN; USAGE if it is what the newest has
 * already; BLOCKS_UNAVAILABLE if its hash tree cannot be had, or, unless forced, blocks of it cannot; PUBLISH_DOUBTFUL if much would
 * be lost, unless forced.
 */
export async function publishEarlier(
  request: RollbackRequest,
  parts: { machine: Machine; signer: SiteSigner; node: MeshNode; source: DiskSource | undefined },
): Promise<RolledBack> {
  const { machine, signer } = parts
  const earlier = machine.manifest(request.image, request.release)
  const { image, root } = earlier
  const newest = machine.manifest(image)
  if (toHex(newest.root) === toHex(root))
    throw new MeshError('USAGE', `release ${newest.release} of ${image} is the newest, and has that content already`)
  const release = newest.release + 1
  const warnings: string[] = []
  const report = (event: AgentEvent): void => {
    if (event.type === 'warning') warnings.push(event.text)
  }
  const trees = await bringTrees(earlier, parts)
  const change = await weighRollback(machine, {
    trees,
    earlier,
    newest,
    release,
    force: request.force,
    node: parts.node,
    report,
  })
  const blocks = await findBlocks(earlier, { ...parts, trees })
  if (blocks.nowhere > 0 && !request.force) {
    throw new MeshError(
      'BLOCKS_UNAVAILABLE',
      `${blocks.nowhere} of ${blocks.total} blocks of release ${earlier.release} of ${image} are on no machine that can be reached; --force publishes it all the same`,
      { detail: { ...blocks } },
    )
  }
  const done = { image, release, content: earlier.release, root: toHex(root), blocks, change, warnings }
  if (request.dryRun) return { event: 'would-roll-back', ...done }
  const label = request.label ?? `as release ${earlier.release}`
  await signer.publish({ ...earlier, release, label, time: new Date().toISOString() })
  return { event: 'rolled-back', ...done }
}

/**
 * The content was published before, on purpose, so that much changes is no reason to doubt it; that much would be lost is one.
 * Errors: PUBLISH_DOUBTFUL, unless forced.
 */
async function weighRollback(
  machine: Machine,
  {
    trees,
    earlier,
    newest,
    release,
    force,
    node,
    report,
  }: {
    trees: TreeStore
    earlier: VerifiedManifest
    newest: VerifiedManifest
    release: number
    force: boolean
    node: MeshNode
    report: (event: AgentEvent) => void
  },
): Promise<ReleaseChange> {
  const { image, size } = earlier
  const [had, has] = [await recallRelease(machine.state, newest.root), await recallRelease(machine.state, earlier.root)]
  const blocks = await blockChange({ facts: newest, trees }, { facts: earlier, trees })
  const step = { image, before: { ...newest, found: had?.found }, size, found: has?.found, blocks }
  const clock = clockDoubts(await clockEvidence(machine, newest, node.clockOffsets(Date.now())))
  settleDoubts([...lossDoubts(step), ...clock], { image, release, force, report })
  return changeOf(step, release)
}

/** Blocks of a release by who has them, as far as that is known without asking or reading. */
async function findBlocks(
  manifest: ReturnType<Machine['manifest']>,
  {
    machine,
    node,
    source,
    trees,
  }: { machine: Machine; node: MeshNode; source: DiskSource | undefined; trees: TreeStore },
): Promise<RolledBack['blocks']> {
  await using stack = new AsyncDisposableStack()
  const tree = stack.adopt(await trees.open(manifest), (it) => it.close())
  const { blockCount, blockSize } = tree.geometry
  const missing: Digest[] = []
  for (let index = 0; index < blockCount; index++) {
    if (index % LOOKED_UP_AT_ONCE === 0) await nextTurn()
    const digest = Uint8Array.from(await tree.leaf(index))
    if (hasNoContent(digest, blockSize) || (source?.blockSize === blockSize && (await source.has(digest)))) continue
    missing.push(digest)
  }
  const notHere = missing.length
  let nowhere = missing
  for (const other of machine.trust.view().releases(manifest.image)) {
    const held = holdersOf(node, toHex(other.root))
    if (nowhere.length === 0 || held === undefined || other.blockSize !== blockSize || !(await trees.has(other)))
      continue
    const theirs = stack.adopt(await trees.open(other), (it) => it.close())
    nowhere = await notIn(theirs, held, nowhere)
  }
  return { total: blockCount, notHere, nowhere: nowhere.length }
}

/** Blocks of a release that some connected machine says it has. */
function holdersOf(node: MeshNode, root: string): Bitmap | undefined {
  const [first, ...more] = node.swarm.holders(root)
  if (first === undefined) return undefined
  const all = first.held.copy()
  for (const { held } of more) for (const [start, end] of held.toRanges().runs()) all.setRange(start, end)
  return all
}

async function notIn(tree: TreeFile, held: Bitmap, digests: readonly Digest[]): Promise<Digest[]> {
  const places = await LocationIndex.build(tree)
  const left: Digest[] = []
  for (const digest of digests) {
    let found = false
    for await (const index of places.find(digest)) found ||= held.has(index)
    if (!found) left.push(digest)
  }
  return left
}
