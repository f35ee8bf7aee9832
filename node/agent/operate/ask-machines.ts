import { setTimeout as sleep } from 'node:timers/promises'
import { MAX_OPERATE_BYTES, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { anyText, type Check, either, list, object, text } from '../../../protocol/json-shape.ts'
import {
  decodeRequest,
  type OperateRequest,
  type Operation,
  type ReplyOf,
  replyShape,
} from '../../../protocol/operate-messages.ts'
import type { Answer } from '../../operate/ask.ts'
import { OperateClient } from '../../operate/operate-client.ts'
import type { Machine } from '../machine/machine.ts'
import { DIAL_TICK_MS } from '../mesh/limits.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { OPERATOR_BATCH, OPERATOR_CONNECT_MS } from './limits.ts'

/** As {@link Answer}, in JSON. */
export type AnswerJson<Op extends Operation> =
  | { readonly id: string; readonly reply: ReplyOf<Op> }
  | { readonly id: string; readonly error: { readonly code: string; readonly message: string } }

/** What an answer to a request must be. */
export function answerShape<Op extends Operation>(op: Op): Check<AnswerJson<Op>> {
  const id = text(MAX_TEXT_BYTES)
  const error = object({ code: text(MAX_TEXT_BYTES), message: anyText(MAX_OPERATE_BYTES) })
  return either(object({ id, reply: replyShape(op) }), object({ id, error }))
}

const isPeers = list(text(MAX_TEXT_BYTES), OPERATOR_BATCH)

/**
 * Asks other machines over the network: for this process, and through the control socket for the commands of an operator. A node
 * that was started a moment ago has not reached everybody yet: for OPERATOR_CONNECT_MS from then on it waits for whom it asks.
 */
export class AskMachines {
  readonly #machine: Pick<Machine, 'config' | 'isOperator'>
  readonly #node: Pick<MeshNode, 'open' | 'onPeer' | 'connectedMembers'>
  readonly #client: OperateClient
  /** When nobody is waited for any more, of performance.now. */
  readonly #settledAt: number
  #closed = false

  /** `connectMs`: @default OPERATOR_CONNECT_MS. */
  constructor(
    machine: Pick<Machine, 'config' | 'isOperator'>,
    node: Pick<MeshNode, 'open' | 'onPeer' | 'connectedMembers'>,
    connectMs = OPERATOR_CONNECT_MS,
  ) {
    this.#machine = machine
    this.#node = node
    this.#settledAt = performance.now() + connectMs
    this.#client = new OperateClient({ open: (peerId, protocol) => node.open(peerId, protocol) })
    node.onPeer((id, isUp) => {
      if (!isUp) this.#client.left(id)
    })
  }

  /** Asks several machines at the same time. Errors: NOT_AN_OPERATOR if this machine is none; the others are answers. */
  async ask<R extends OperateRequest>(peers: readonly string[], request: R): Promise<Answer<R['op']>[]> {
    const { config } = this.#machine
    if (!this.#machine.isOperator(config.id))
      throw new MeshError('NOT_AN_OPERATOR', `${config.name} is neither the master nor an operator’s machine`)
    await this.#connected(peers)
    return Promise.all(
      peers.map((id) =>
        this.#client.ask(id, request).then(
          (reply) => ({ id, reply }),
          (error: unknown) => {
            if (!isMeshError(error)) throw error
            return { id, error }
          },
        ),
      ),
    )
  }

  /** The control socket's method `operate`: `{peers, request}`. Errors: USAGE, and as {@link ask}. */
  async askAll(params: Readonly<Record<string, unknown>>): Promise<AnswerJson<Operation>[]> {
    const { peers, request } = params
    if (!isPeers(peers)) throw new MeshError('USAGE', `operate takes the ids of at most ${OPERATOR_BATCH} peers`)
    const answers = await this.ask(peers, requestOf(request))
    return answers.map((answer) => {
      if ('reply' in answer) return answer
      const { code, message } = answer.error
      return { id: answer.id, error: { code, message } }
    })
  }

  /** Waits for those that a young node may still connect to. */
  async #connected(peers: readonly string[]): Promise<void> {
    while (!this.#closed && performance.now() < this.#settledAt) {
      const here = new Set(this.#node.connectedMembers().map(({ id }) => id))
      if (peers.every((id) => here.has(id))) return
      await sleep(DIAL_TICK_MS / 5)
    }
  }

  /** Gives up what is being asked. */
  close(): void {
    this.#closed = true
    this.#client.close()
  }
}

/** The same check as for what comes over the network. */
function requestOf(value: unknown): OperateRequest {
  return decodeRequest({ type: 'operate', payload: Buffer.from(JSON.stringify(value ?? null)) })
}
