import { isMeshError, MeshError } from '../../protocol/errors.ts'
import {
  decodeRequest,
  encodeFailure,
  encodeReply,
  type MachineState,
  type OperateMessage,
  type OperateRequest,
  type ReplyOf,
  type RequestOf,
} from '../../protocol/operate-messages.ts'
import type { FrameStream } from '../net/frame-stream.ts'
import type { Resetter } from './resetter.ts'
import type { RollStore } from './roll-store.ts'

/** What a machine answers operators from. */
interface OperateServerOptions {
  /** Whether a peer is the master or an operator, by the signed member list at this moment. */
  readonly mayOperate: (peerId: string) => boolean
  /** The group this machine is in. */
  readonly group: () => string
  readonly state: () => Promise<MachineState>
  /** A page of receipts with numbers above `since`, for the operator who asks. */
  readonly receipts: (since: number, askedBy: string) => Promise<ReplyOf<'receipts'>>
  /** Number of the newest receipt of another machine that is kept here. */
  readonly newestOf: (peerId: string) => Promise<number | null>
  readonly rolls: RollStore
  readonly resetter: Resetter
}

/** Answers operators (docs/PROTOCOL.md, operate protocol): one request after the other on each stream. */
export class OperateServer {
  readonly #options: OperateServerOptions

  constructor(options: OperateServerOptions) {
    this.#options = options
  }

  /** Serves one stream until its client closes it. Errors: PROTOCOL_VIOLATION. */
  async serve(stream: FrameStream): Promise<void> {
    for await (const message of stream.messages()) await stream.send(await this.#answer(stream.peerId, message))
  }

  async #answer(peerId: string, message: Parameters<typeof decodeRequest>[0]): Promise<OperateMessage> {
    const request = decodeRequest(message)
    try {
      // Every member may ask about itself.
      if (request.op === 'seen') return encodeReply<'seen'>({ number: await this.#options.newestOf(peerId) })
      // Looked at for each request: a role may be taken away while the stream is open.
      if (!this.#options.mayOperate(peerId))
        throw new MeshError('NOT_AN_OPERATOR', 'only the master and operators may ask for that')
      return await this.#do(request, peerId)
    } catch (error) {
      if (!isMeshError(error) || error.code === 'PROTOCOL_VIOLATION') throw error
      return encodeFailure(error)
    }
  }

  async #do(request: Exclude<OperateRequest, RequestOf<'seen'>>, peerId: string): Promise<OperateMessage> {
    const { state, receipts, rolls } = this.#options
    switch (request.op) {
      case 'state':
        return encodeReply<'state'>(await state())
      case 'receipts':
        return encodeReply<'receipts'>(await receipts(request.since, peerId))
      case 'reset':
        return this.#reset(request)
      case 'roll-get':
        return encodeReply<'roll-get'>({ document: (await rolls.get(request.group))?.signed ?? null })
      case 'roll-put':
        return encodeReply<'roll-put'>(await rolls.put(request.document))
    }
  }

  async #reset({ roll, epoch, warningSeconds, evenInUse }: RequestOf<'reset'>): Promise<OperateMessage> {
    const { group, rolls, resetter } = this.#options
    const check = async (): Promise<void> => {
      if (roll !== null) await rolls.allows(group(), roll, epoch)
    }
    await check()
    // While a user is warned the roll may be taken over.
    const calledOff = (): Promise<string | undefined> =>
      check().then(
        () => undefined,
        (error: Error) => error.message,
      )
    await resetter.request({ warningSeconds, evenInUse, calledOff })
    return encodeReply<'reset'>({ granted: true })
  }
}
