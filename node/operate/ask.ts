import type { MeshError } from '../../protocol/errors.ts'
import type { OperateRequest, Operation, ReplyOf } from '../../protocol/operate-messages.ts'

/** What one machine said, or why it said nothing. */
export type Answer<Op extends Operation> =
  | { readonly id: string; readonly reply: ReplyOf<Op> }
  | { readonly id: string; readonly error: MeshError }

/** Asks machines one request, and says how each of them answered. */
export type Ask = <R extends OperateRequest>(peers: readonly string[], request: R) => Promise<Answer<R['op']>[]>
