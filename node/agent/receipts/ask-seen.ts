import { setTimeout as sleep } from 'node:timers/promises'
import { isMeshError } from '../../../protocol/errors.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import { OperateClient } from '../../operate/operate-client.ts'
import type { Machine } from '../machine/machine.ts'
import { SEEN_DEADLINE_MS } from './limits.ts'
import { heardOfReceipt } from './receipt-floor.ts'

/** The part of a node that is needed here. */
interface Node {
  connectedMembers(): readonly { readonly id: string }[]
  open(peerId: string, protocol: string): Promise<FrameStream>
}

/** What the master and operators' machines say of this machine's receipts. */
export interface SeenReceipts {
  /** Why the write log must not be believed; absent if nobody knows of a newer receipt. */
  readonly doubt?: string
}

/**
 * Asks the connected machines that gather receipts for the newest one of this machine, for a short time. Undefined if there are none, or
 * none has answered. `record` makes a doubt of the log durable.
 */
export async function askSeen(
  machine: Machine,
  node: Node,
  record: (doubt: string) => Promise<void>,
): Promise<SeenReceipts | undefined> {
  const operators = node.connectedMembers().filter(({ id }) => machine.isOperator(id))
  if (operators.length === 0) return undefined
  const client = new OperateClient({ open: (peerId, protocol) => node.open(peerId, protocol) })
  const seen: { by: string; number: number }[] = []
  const asked = operators.map(async ({ id }) => {
    const { number } = await client.ask(id, { op: 'seen' }).catch(silent)
    if (number !== undefined) seen.push({ by: machine.nameOf(id), number: number ?? 0 })
  })
  await Promise.race([Promise.all(asked), sleep(SEEN_DEADLINE_MS, undefined, { ref: false })])
  client.close()
  await Promise.all(asked)
  const [most] = seen.toSorted((a, b) => b.number - a.number)
  if (most === undefined) return undefined
  const doubt = await heardOfReceipt(machine, most, record)
  return doubt === undefined ? {} : { doubt }
}

/** An older version does not know the question, and a machine may go at any moment. */
function silent(error: unknown): { number?: undefined } {
  if (isMeshError(error)) return {}
  throw error
}
