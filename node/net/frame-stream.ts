import type { Stream } from '@libp2p/interface'
import { STREAM_BACKLOG_BYTES } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import { encodeFrame, FrameDecoder } from '../../protocol/frames.ts'
import type { Message } from '../../protocol/messages.ts'

/** A stream of messages to one proven peer, with back-pressure both ways. */
export interface FrameStream {
  readonly peerId: string
  /** Payload and framing bytes since the stream was opened. */
  readonly bytesReceived: number
  readonly bytesSent: number
  /** Resolves when more may be sent. Rejects once the stream is closed or aborted. */
  send(message: Message): Promise<void>
  /** Messages in order, until the peer closes; may be iterated once. Rejects on abort and on PROTOCOL_VIOLATION. */
  messages(): AsyncGenerator<Message>
  /** Ends the own direction. */
  close(): Promise<void>
  /** Ends both directions at once; `messages` and `send` reject with `error`. */
  abort(error: Error): void
}

/** Frames over a libp2p stream. */
export class Libp2pFrameStream implements FrameStream {
  readonly peerId: string
  bytesReceived = 0
  bytesSent = 0
  readonly #stream: Stream
  readonly #decoder = new FrameDecoder()
  readonly #arrived: Message[] = []
  #backlogBytes = 0
  #ended = false
  #closed = false
  #failure: Error | undefined
  #wake: (() => void) | undefined
  /** Senders that wait for room. */
  #writers: (() => void)[] = []

  constructor(stream: Stream, peerId: string) {
    this.#stream = stream
    this.peerId = peerId
    stream.addEventListener('message', (event) => this.#receive(event.data))
    stream.addEventListener('drain', () => this.#wakeWriters())
    stream.addEventListener('remoteCloseWrite', () => this.#end(undefined))
    stream.addEventListener('close', (event) => {
      this.#closed = true
      this.#end(event.error)
    })
  }

  async send(message: Message): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    let room = true
    try {
      // Without a pause in between, so that frames sent at the same time do not mix.
      for (const piece of encodeFrame(message)) {
        this.bytesSent += piece.byteLength
        room = this.#stream.send(piece)
      }
    } catch (cause) {
      throw new MeshError('PEERS_UNREACHABLE', `the stream to ${this.peerId} is closed`, { cause })
    }
    if (!room) await this.#drained()
  }

  async *messages(): AsyncGenerator<Message> {
    for (;;) {
      const message = this.#arrived.shift()
      if (message !== undefined) {
        this.#backlogBytes -= weightOf(message)
        if (this.#backlogBytes <= STREAM_BACKLOG_BYTES / 2 && this.#stream.readStatus === 'paused')
          this.#stream.resume()
        yield message
      } else if (this.#failure !== undefined) throw this.#failure
      else if (this.#ended) {
        if (this.#decoder.atBoundary) return
        throw new MeshError('PROTOCOL_VIOLATION', `${this.peerId} ended the stream within a message`)
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    }
  }

  async close(): Promise<void> {
    await this.#stream.close()
  }

  abort(error: Error): void {
    this.#closed = true
    this.#end(error)
    this.#stream.abort(error)
  }

  /**
   * Waits until the stream takes more. Not by its own `onDrain`, whose promise is made once and stays resolved after
   * the first drain, so that a fast sender would never wait again.
   */
  async #drained(): Promise<void> {
    while (this.#stream.writableNeedsDrain && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#writers.push(resolve)
      })
    }
    if (this.#failure !== undefined) throw this.#failure
  }

  #wakeWriters(): void {
    for (const wake of this.#writers.splice(0)) wake()
  }

  #receive(data: Uint8Array | Iterable<Uint8Array>): void {
    if (this.#failure !== undefined) return
    try {
      for (const chunk of data instanceof Uint8Array ? [data] : data) {
        this.bytesReceived += chunk.byteLength
        for (const message of this.#decoder.push(chunk)) {
          this.#backlogBytes += weightOf(message)
          this.#arrived.push(message)
        }
      }
    } catch (error) {
      this.abort(error instanceof Error ? error : new Error(String(error)))
      return
    }
    if (this.#backlogBytes > STREAM_BACKLOG_BYTES && this.#stream.readStatus === 'readable') this.#stream.pause()
    this.#wakeReader()
  }

  #end(error: Error | undefined): void {
    this.#ended = true
    this.#failure ??= error
    this.#wakeReader()
    this.#wakeWriters()
  }

  #wakeReader(): void {
    this.#wake?.()
    this.#wake = undefined
  }
}

/** What a waiting message counts for: its payload and something for itself, so that many small ones are bounded too. */
function weightOf(message: Message): number {
  return 512 + ('payload' in message ? message.payload.byteLength : 0)
}
