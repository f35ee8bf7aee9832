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
import type { MeshNode } from '../mesh/mesh-node.ts'
import { OPERATOR_BATCH } from './limits.ts'

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

/** Asks other machines over the network: for this process, and through the control socket for the commands of an operator. */
export class AskMachines {
  readonly #machine: Machine
  readonly #client: OperateClient

  constructor(machine: Machine, node: MeshNode) {
    this.#machine = machine
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

  /** Gives up what is being asked. */
  close(): void {
    this.#client.close()
  }
}

/** The same check as for what comes over the network. */
function requestOf(value: unknown): OperateRequest {
  return decodeRequest({ type: 'operate', payload: Buffer.from(JSON.stringify(value ?? null)) })
}
