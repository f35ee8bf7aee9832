import { describeContent } from '../../disk/disk-content.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { AgentEvent, ReleaseChange } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { clockDoubts, clockEvidence } from './clock-doubts.ts'
import { changeDoubts, lossDoubts, type ReleaseStep, settleDoubts } from './publish-doubts.ts'
import { blockChange } from './release-change.ts'
import type { ReleaseContent } from './release-content.ts'
import { recallRelease } from './release-memory.ts'
import type { ReleasePlan } from './release-plan.ts'
import { restoreDoubt } from './restore-doubt.ts'

/** What {@link weighRelease} works with. */
interface WeighOptions {
  /** Undefined before the site is created. */
  readonly machine: Machine | undefined
  readonly disk: string
  readonly plan: ReleasePlan
  readonly content: Pick<ReleaseContent, 'tree' | 'found'>
  /** Where the hash tree of the content is. */
  readonly trees: TreeStore
  /** How far the clocks of members are ahead of this machine's, in milliseconds. */
  readonly clocks: readonly number[]
  readonly force: boolean
  readonly report: (event: AgentEvent) => void
}

/**
 * Tells what a release changes, and refuses one that may be a mistake: publishing is the one command that reaches every machine.
 * Errors: PUBLISH_DOUBTFUL, unless forced.
 */
export async function weighRelease(options: WeighOptions): Promise<void> {
  const { machine, plan, content, clocks, force, report } = options
  const { image, release, before, size } = plan
  const doubts = machine === undefined ? [] : clockDoubts(await clockEvidence(machine, before, clocks))
  if (machine === undefined || before === undefined) {
    const step = { image, before: undefined, size, found: content.found, blocks: undefined }
    report({ type: 'change', change: changeOf(step, release) })
  } else doubts.unshift(...(await diskDoubts(options, machine, before)))
  settleDoubts(doubts, { image, release, force, report })
}

/** Tells what changes, and says what of the disk speaks against it. */
async function diskDoubts(
  { disk, plan, content, trees, report }: WeighOptions,
  machine: Machine,
  before: VerifiedManifest,
): Promise<string[]> {
  const { image, release, size } = plan
  const { tree, found } = content
  const memory = await recallRelease(machine.state, before.root)
  const known = new TreeStore(machine.state.path('trees'))
  const blocks = await blockChange({ facts: before, trees: known }, { facts: tree, trees })
  const step = { image, before: { ...before, found: memory?.found }, size, found, blocks }
  report({ type: 'change', change: changeOf(step, release) })
  const restored = await restoreDoubt(machine, disk, memory)
  return [...lossDoubts(step), ...changeDoubts(step), ...(restored === undefined ? [] : [restored])]
}

/** What people are told of a step to the release of this number. */
export function changeOf({ image, before, size, found, blocks }: ReleaseStep, release: number): ReleaseChange {
  const words = (content: ReleaseStep['found']): string | null =>
    content === undefined ? null : describeContent(content)
  return {
    image,
    release,
    size,
    sizeBefore: before?.size ?? null,
    blocks: blocks ?? null,
    content: words(found),
    contentBefore: words(before?.found),
  }
}
