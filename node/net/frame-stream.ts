import type { Stream } from '@libp2p/interface'
import { REQUEST_DEADLINE_MS } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import { encodeFrame, FrameDecoder } from '../../protocol/frames.ts'
import type { SignedAddresses } from '../../protocol/message-parts.ts'
import type { Message } from '../../protocol/messages.ts'
import { SEND_GATHER_BYTES, SERVED_BACKLOG_BYTES, STREAM_BACKLOG_BYTES, UNTAKEN_MS } from './limits.ts'

/** A stream of messages to one proven peer, with back-pressure both ways. */
export interface FrameStream {
  readonly peerId: string
  /** Payload and framing bytes since the stream was opened. */
  readonly bytesReceived: number
  readonly bytesSent: number
  /** Resolves when more may be sent. Rejects once the stream is closed or aborted. */
  send(message: Message): Promise<void>
  /**
   * Messages in order, until the peer ends its direction; may be iterated once. Rejects with the error of `abort`, and with
   * PROTOCOL_VIOLATION, or PEERS_UNREACHABLE when the stream or the connection was lost.
   */
  messages(): AsyncGenerator<Message>
  /** Ends the own direction when the peer has taken all that was sent. Errors: REQUEST_TIMEOUT; the stream is aborted then. */
  close(): Promise<void>
  /** Ends both directions at once, what has not been read is thrown away; `messages` and `send` reject with `error`. */
  abort(error: Error): void
}

/** Frames over a libp2p stream. */
export class Libp2pFrameStream implements FrameStream {
  readonly peerId: string
  bytesReceived = 0
  bytesSent = 0
  readonly #stream: Stream
  readonly #decoder = new FrameDecoder()
  /** Received bytes that may wait for the reader. */
  readonly #mostBacklog: number
  /** Looks whether the peer takes what waits for it. */
  #untakenTimer: NodeJS.Timeout | undefined
  /** Frames that leave together at the end of this turn of the event loop. */
  #gathered: Uint8Array[] = []
  #gatheredBytes = 0
  /** Messages that wait for the reader, in the portions in which they came. */
  #arrived: Message[][] = []
  #backlogBytes = 0
  /** The peer ended its direction itself: the connection was not lost. */
  #finished = false
  /** Nothing more will arrive. */
  #ended = false
  /** Nothing more can be sent. */
  #closed = false
  #failure: Error | undefined
  #wake: (() => void) | undefined
  /** Senders that wait for room. */
  #writers: (() => void)[] = []

  constructor(stream: Stream, peerId: string) {
    this.#stream = stream
    this.peerId = peerId
    this.#mostBacklog = stream.direction === 'inbound' ? SERVED_BACKLOG_BYTES : STREAM_BACKLOG_BYTES
    stream.addEventListener('message', (event) => this.#receive(event.data))
    stream.addEventListener('drain', () => this.#wakeWriters())
    // Data may still wait in a paused stream when the peer ends its direction; 'end' comes after it.
    stream.addEventListener('remoteCloseWrite', () => {
      this.#finished = true
    })
    stream.addEventListener('end', () => this.#end())
    stream.addEventListener('close', (event) => this.#lose(event.error))
    // What happened before anybody listened is not told again. Data that came with the end is told in the microtask that
    // the 'message' listener above has queued.
    if (stream.readableEnded) queueMicrotask(() => this.#end())
    if (stream.status === 'reset' || stream.status === 'aborted') this.#fail(this.#unreachable('was reset'))
    else if (stream.status === 'closed') this.#lose(undefined)
  }

  async send(message: Message): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#closed || this.#stream.writeStatus !== 'writable') throw this.#unreachable('is closed')
    // Every send of its own would cost a frame of yamux and of noise, and a window update in return.
    if (this.#gathered.length === 0) setImmediate(() => this.#flush())
    for (const piece of encodeFrame(message)) {
      this.bytesSent += piece.byteLength
      this.#gatheredBytes += piece.byteLength
      this.#gathered.push(piece)
    }
    if (this.#gatheredBytes >= SEND_GATHER_BYTES) this.#flush()
    await this.#drained()
  }

  async *messages(): AsyncGenerator<Message> {
    for (;;) {
      const portion = this.#arrived.shift()
      if (portion !== undefined) {
        for (const message of portion) {
          if (this.#stream.status === 'aborted') break
          this.#backlogBytes -= weightOf(message)
          if (this.#backlogBytes <= this.#mostBacklog / 2) this.#resume()
          yield message
        }
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
    this.#flush()
    try {
      await this.#stream.close({ signal: AbortSignal.timeout(REQUEST_DEADLINE_MS) })
    } catch (cause) {
      const late = new MeshError('REQUEST_TIMEOUT', `${this.peerId} did not take what was sent to it`, { cause })
      this.abort(late)
      throw late
    }
  }

  abort(error: Error): void {
    this.#arrived = []
    this.#gathered = []
    this.#fail(error)
    this.#stream.abort(error)
  }

  #flush(): void {
    const frames = this.#gathered
    if (frames.length === 0) return
    this.#gathered = []
    this.#gatheredBytes = 0
    try {
      this.#stream.send(Buffer.concat(frames))
      if (this.#stream.writableNeedsDrain) this.#watchTaken()
    } catch (cause) {
      this.#fail(this.#unreachable('is closed', cause))
    }
  }

  /** Ends the stream if the peer takes nothing for UNTAKEN_MS of what waits for it. */
  #watchTaken(): void {
    if (this.#untakenTimer !== undefined) return
    const taken = (): number => this.bytesSent - this.#gatheredBytes - this.#stream.writeBufferLength
    const before = taken()
    this.#untakenTimer = setTimeout(() => {
      this.#untakenTimer = undefined
      if (this.#closed || !this.#stream.writableNeedsDrain) return
      if (taken() > before) this.#watchTaken()
      else this.abort(new MeshError('REQUEST_TIMEOUT', `${this.peerId} did not take what was sent to it`))
    }, UNTAKEN_MS).unref()
  }

  /**
   * Waits until the stream takes more. Not by its own `onDrain`, whose promise is made once and stays resolved after
   * the first drain, so that a fast sender would never wait again.
   */
  async #drained(): Promise<void> {
    while (this.#stream.writableNeedsDrain) {
      if (this.#failure !== undefined) throw this.#failure
      if (this.#closed) throw this.#unreachable('was closed before it took everything')
      await new Promise<void>((resolve) => {
        this.#writers.push(resolve)
      })
    }
  }

  #wakeWriters(): void {
    for (const wake of this.#writers.splice(0)) wake()
  }

  #receive(data: Uint8Array | Iterable<Uint8Array>): void {
    if (this.#failure !== undefined) return
    const messages: Message[] = []
    try {
      for (const chunk of data instanceof Uint8Array ? [data] : data) {
        this.bytesReceived += chunk.byteLength
        for (const message of this.#decoder.push(chunk)) {
          this.#backlogBytes += weightOf(message)
          messages.push(message)
        }
      }
    } catch (error) {
      this.abort(error instanceof Error ? error : new Error(String(error)))
      return
    }
    if (messages.length === 0) return
    this.#arrived.push(messages)
    if (this.#backlogBytes > this.#mostBacklog && this.#stream.readStatus === 'readable') this.#stream.pause()
    this.#wakeReader()
  }

  #resume(): void {
    if (this.#stream.readStatus !== 'paused') return
    try {
      this.#stream.resume()
    } catch (cause) {
      // What had arrived is delivered; only the peer can no longer be told to go on.
      this.#fail(this.#unreachable('was lost', cause))
    }
  }

  /** Everything that will ever arrive has arrived. A machine that goes down in the middle of a block has lied to nobody. */
  #end(): void {
    this.#ended = true
    if (!this.#finished && this.#stream.status === 'closed') this.#failure ??= this.#unreachable('was lost')
    this.#wakeReader()
  }

  /** The stream is gone. Without an error, what has arrived may still be read; 'end' comes after it. */
  #lose(error: Error | undefined): void {
    this.#closed = true
    if (error !== undefined) this.#fail(this.#unreachable('was reset', error))
    else this.#wakeWriters()
  }

  #fail(error: Error): void {
    this.#closed = true
    this.#ended = true
    this.#failure ??= error
    this.#wakeReader()
    this.#wakeWriters()
  }

  #wakeReader(): void {
    this.#wake?.()
    this.#wake = undefined
  }

  #unreachable(what: string, cause?: unknown): MeshError {
    return new MeshError('PEERS_UNREACHABLE', `the stream to ${this.peerId} ${what}`, { cause })
  }
}

/** Roughly what a waiting message takes in memory, so that long lists and many small messages are bounded too. */
function weightOf(message: Message): number {
  const base = 512
  switch (message.type) {
    case 'block':
    case 'file-reply':
    case 'operate':
      return base + message.payload.byteLength
    case 'have':
      return base + 24 * (message.gained.runCount + message.lost.runCount)
    case 'want':
      return base + 256 * message.requests.length
    case 'missing':
    case 'cancel':
    case 'busy':
      return base + 16 * message.ids.length
    case 'hello':
      return base + 256 * message.held.length + 1024 * message.addresses.length + recordWeight(message)
    case 'holds':
      return base + 256 * message.held.length
    case 'peers':
      return base + message.peers.reduce((sum, peer) => sum + 256 + textWeight(peer.addresses) + recordWeight(peer), 0)
    default:
      return base
  }
}

function recordWeight({ record }: { readonly record?: SignedAddresses | undefined }): number {
  return record === undefined ? 0 : 64 + textWeight([record.text, record.signature])
}

function textWeight(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + 64 + text.length, 0)
}
