import { MAX_OPERATE_REQUESTS_OPEN, OPERATE_PROTOCOL, REQUEST_DEADLINE_MS } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import type { Message } from '../../protocol/messages.ts'
import { decodeReply, encodeRequest, type OperateRequest, type ReplyOf } from '../../protocol/operate-messages.ts'
import type { FrameStream } from '../net/frame-stream.ts'

/** Opens a stream of a protocol to a connected peer. */
type Open = (peerId: string, protocol: string) => Promise<FrameStream>

/** Asks machines, many at the same time: one stream to each, kept for the next request, answers in the order of requests. */
export class OperateClient {
  readonly #open: Open
  readonly #lines = new Map<string, Line>()
  #closed = false

  constructor(options: { open: Open }) {
    this.#open = options.open
  }

  /**
   * Sends a request and waits for its answer, REQUEST_DEADLINE_MS at most.
   * Errors: PEERS_UNREACHABLE (not connected, or lost meanwhile), REQUEST_TIMEOUT, PROTOCOL_VIOLATION, and what the
   * machine answered: NOT_AN_OPERATOR, ROLL_SUPERSEDED, MACHINE_IN_USE, RESET_DISABLED and others.
   */
  async ask<R extends OperateRequest>(peerId: string, request: R): Promise<ReplyOf<R['op']>> {
    if (this.#closed) throw new MeshError('PEERS_UNREACHABLE', 'this node is stopping')
    let line = this.#lines.get(peerId)
    if (line === undefined || line.broken) {
      line = new Line(this.#open(peerId, OPERATE_PROTOCOL), peerId)
      this.#lines.set(peerId, line)
    }
    return line.ask(request)
  }

  /** A peer was disconnected: its stream is gone, and the next request needs a new one. */
  left(peerId: string): void {
    this.#lines.get(peerId)?.break(new MeshError('PEERS_UNREACHABLE', `${peerId} was disconnected`))
    this.#lines.delete(peerId)
  }

  close(): void {
    this.#closed = true
    for (const line of this.#lines.values()) line.break(new MeshError('INTERRUPTED', 'this node is stopping'))
    this.#lines.clear()
  }
}

/** One stream to one machine. */
class Line {
  broken = false
  readonly #peerId: string
  readonly #stream: Promise<{ stream: FrameStream; replies: AsyncGenerator<Message> }>
  /** Turns of sending, and of reading, so that answers meet their requests. */
  #sent: Promise<unknown> = Promise.resolve()
  #read: Promise<unknown> = Promise.resolve()
  #open = 0

  constructor(opening: Promise<FrameStream>, peerId: string) {
    this.#peerId = peerId
    this.#stream = opening.then((stream) => ({ stream, replies: stream.messages() }))
    this.#stream.catch(() => {
      this.broken = true
    })
  }

  async ask<R extends OperateRequest>(request: R): Promise<ReplyOf<R['op']>> {
    if (this.#open >= MAX_OPERATE_REQUESTS_OPEN)
      throw new MeshError('REQUEST_TIMEOUT', `${this.#peerId} has not answered ${this.#open} requests yet`)
    this.#open++
    const timer = setTimeout(
      () => this.break(new MeshError('REQUEST_TIMEOUT', `${this.#peerId} did not answer ${request.op}`)),
      REQUEST_DEADLINE_MS,
    )
    try {
      const { stream, replies } = await this.#stream
      this.#sent = this.#sent.then(() => stream.send(encodeRequest(request)))
      const reading = Promise.all([this.#sent, this.#read]).then(() => replies.next())
      this.#read = reading
      const reply = await reading
      if (reply.done === true) throw new MeshError('PEERS_UNREACHABLE', `${this.#peerId} ended the stream`)
      return decodeReply<R['op']>(request.op, reply.value)
    } catch (error) {
      // What a machine answers leaves the stream as it is; everything else ends it for those who wait, too.
      if (!(error instanceof MeshError) || BREAKING.has(error.code)) this.break(error)
      throw error
    } finally {
      clearTimeout(timer)
      this.#open--
    }
  }

  /** Ends the stream; whoever waits for an answer gets `error`. */
  break(error: unknown): void {
    this.broken = true
    const reason = error instanceof Error ? error : new Error(String(error))
    this.#stream.then(({ stream }) => stream.abort(reason)).catch(() => undefined)
  }
}

const BREAKING: ReadonlySet<string> = new Set([
  'PEERS_UNREACHABLE',
  'REQUEST_TIMEOUT',
  'PROTOCOL_VIOLATION',
  'INTERRUPTED',
])
