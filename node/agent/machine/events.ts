import { anyText, type Check, literal, natural, object, optional } from '../../../protocol/json-shape.ts'
import type { Progress } from '../../disk/progress.ts'
import type { HookOutcome } from '../../hooks/run-hook.ts'
import type { RestoreResult } from '../../restore/restore-result.ts'
import type { RollEvent } from '../../roll/roll-operator.ts'
import type { LogState } from '../../writelog/write-log.ts'

/** A reason names peers. */
const MAX_REASON_BYTES = 64 * 1024

/** What a command tells while it runs; the command line prints it, `--json` passes it on as it is. */
export type AgentEvent =
  | ({ type: 'progress'; peers?: number } & Progress)
  | { type: 'note'; text: string }
  | { type: 'warning'; text: string }
  | { type: 'listening'; peerId: string; addresses: string[] }
  | { type: 'serving'; image: string; release: number; blocks: number }
  | ({ type: 'staged'; image: string } & StagingStatus)
  | { type: 'monitoring'; disk: string; uri: string; state: LogState['state']; dirty: number; openMs: number }
  | ({ type: 'hook' } & HookOutcome)
  | { type: 'change'; change: ReleaseChange }
  | { type: 'published'; published: Published }
  | { type: 'receipt'; receipt: RestoreResult }
  | { type: 'waiting'; name: string; code: string; why: string }
  | { type: 'member'; id: string; name: string }
  | { type: 'peer'; id: string; name: string; up: boolean }
  | RollEvent

/** What a release changes, told before it is signed. */
export interface ReleaseChange {
  readonly image: string
  readonly release: number
  /** Bytes, and those of the release before; null for the first. */
  readonly size: number
  readonly sizeBefore: number | null
  /** Null for the first release, if the hash tree of the one before is not here, or has blocks of another size. */
  readonly blocks: {
    readonly total: number
    readonly changed: number
    /** Blocks of the release before that are not zeros, how many of them become zeros, and how many change at all. */
    readonly filled: number
    readonly zeroed: number
    readonly lost: number
  } | null
  /** Partition table and file systems that were found, in words, and those of the release before; null if nobody has looked. */
  readonly content: string | null
  readonly contentBefore: string | null
}

/** Result of `mesh seed --dry-run`. */
export interface WouldPublish {
  readonly event: 'would-publish'
  readonly image: string
  /** The release that would be published, or the newest if the content is the same. */
  readonly release: number
  /** Root of the hash tree, hexadecimal. */
  readonly root: string
  readonly size: number
  readonly blockSize: number
  readonly unchanged: boolean
}

/** Result of `mesh seed`. */
export interface Published {
  readonly event: 'published'
  readonly image: string
  readonly release: number
  /** Root of the hash tree, hexadecimal. */
  readonly root: string
  readonly size: number
  readonly blockSize: number
  readonly seconds: number
  /** True when the disk still has the content of the newest release, so that nothing was published. */
  readonly unchanged: boolean
}

/** What a command of another version tells of its stage must be this. */
export const isStagingStatus: Check<StagingStatus> = object({
  release: natural(),
  wanted: natural(),
  staged: natural(),
  left: natural(),
  received: natural(),
  state: literal('fetching', 'waiting', 'done'),
  reason: optional(anyText(MAX_REASON_BYTES)),
})

/** How far a coming release has been fetched ahead; part of `mesh status`. */
export interface StagingStatus {
  readonly release: number
  /** Blocks that have to be staged for a restore without the network, and those that are. */
  readonly wanted: number
  readonly staged: number
  /** Blocks of `wanted` for which there is no room; the restore fetches them. */
  readonly left: number
  /** Bytes that came over the network for it. */
  readonly received: number
  readonly state: 'fetching' | 'waiting' | 'done'
  /** What it waits for. */
  readonly reason?: string
}
