import { MeshError } from '../../../protocol/errors.ts'
import { type DiskContent, describeContent } from '../../disk/disk-content.ts'
import type { AgentEvent } from '../machine/events.ts'
import { FEW_BLOCKS } from './limits.ts'
import type { BlockChange } from './release-change.ts'

/** What is known of a release that is about to be signed, and of the one before it. */
export interface ReleaseStep {
  readonly image: string
  /** Undefined for the first release. */
  readonly before:
    | { readonly release: number; readonly size: number /** As below. */; readonly found: DiskContent | undefined }
    | undefined
  /** Bytes. */
  readonly size: number
  /** What was found on its disk; undefined if nobody has looked. */
  readonly found: DiskContent | undefined
  readonly blocks: BlockChange | undefined
}

/** What of the release before would be lost, each reason as one clause with its numbers. */
export function lossDoubts({ before, size, found, blocks }: ReleaseStep): string[] {
  if (before === undefined) return []
  const last = `release ${before.release}`
  const doubts: string[] = []
  if (size !== before.size) doubts.push(`it has ${size} bytes, and ${last} has ${before.size}`)
  if (before.found !== undefined && found !== undefined && isGone(before.found, found))
    doubts.push(`it holds ${describeContent(found)}, and ${last} holds ${describeContent(before.found)}`)
  if (blocks !== undefined && blocks.zeroed > blocks.filled / 2)
    doubts.push(`${share(blocks.zeroed, blocks.filled, `blocks with content of ${last}`)} become zeros, more than half`)
  return doubts
}

/** Whether more changes than an update of the model does, as one clause. */
export function changeDoubts({ before, blocks }: ReleaseStep): string[] {
  if (before === undefined || blocks === undefined) return []
  const { total, changed, filled, lost } = blocks
  if (total >= FEW_BLOCKS && changed > total / 2) return [`${share(changed, total, 'blocks')} change, more than half`]
  if (filled < FEW_BLOCKS || lost <= filled / 2) return []
  return [`${share(lost, filled, `blocks with content of release ${before.release}`)} change, more than half`]
}

function share(part: number, whole: number, what: string): string {
  return `${part} of ${whole} ${what} (${Math.round((100 * part) / whole)} %)`
}

/** Whether a partition table is gone, or all file systems are. */
function isGone(before: DiskContent, now: DiskContent): boolean {
  return (
    (before.table !== undefined && now.table === undefined) ||
    (before.fileSystems.length > 0 && now.fileSystems.length === 0)
  )
}

/** Refuses a release that may be a mistake, with all reasons at once. Forced, it only warns. Errors: PUBLISH_DOUBTFUL. */
export function settleDoubts(
  doubts: readonly string[],
  {
    image,
    release,
    force,
    report,
  }: { image: string; release: number; force: boolean; report: (event: AgentEvent) => void },
): void {
  if (doubts.length === 0) return
  const reasons = doubts.length === 1 ? doubts[0] : doubts.map((doubt, i) => `(${i + 1}) ${doubt}`).join('; ')
  if (!force) {
    const price = '--force publishes it all the same, and every machine restores to it at its next boot'
    const text = `release ${release} of ${image} is not published: ${reasons}; ${price}`
    throw new MeshError('PUBLISH_DOUBTFUL', text, { detail: { image, release, reasons: doubts } })
  }
  report({
    type: 'warning',
    text: `release ${release} of ${image} is published because of --force, although: ${reasons}`,
  })
}
