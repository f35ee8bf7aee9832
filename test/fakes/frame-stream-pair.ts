import type { FrameStream } from '../../node/net/frame-stream.ts'
import { MeshError } from '../../protocol/errors.ts'
import { encodeFrame, FrameDecoder } from '../../protocol/frames.ts'
import type { Message } from '../../protocol/messages.ts'

/** One end of a connected pair of frame streams in memory; messages pass through the real encoding. */
export class FakeStream implements FrameStream {
  readonly peerId: string
  bytesReceived = 0
  bytesSent = 0
  /** While true, nothing that is sent arrives. */
  muted = false
  other: FakeStream | undefined
  readonly #arrived: Message[] = []
  readonly #decoder = new FrameDecoder()
  #ended = false
  #failure: Error | undefined
  #wake: (() => void) | undefined

  constructor(peerId: string) {
    this.peerId = peerId
  }

  async send(message: Message): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    if (this.muted) return
    for (const piece of encodeFrame(message)) {
      this.bytesSent += piece.byteLength
      this.other?.receive(piece)
    }
    // As on a real stream, the other side acts in a later turn.
    await new Promise((resolve) => setImmediate(resolve))
  }

  async *messages(): AsyncGenerator<Message> {
    for (;;) {
      const message = this.#arrived.shift()
      if (message !== undefined) yield message
      else if (this.#failure !== undefined) throw this.#failure
      else if (this.#ended) return
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    }
  }

  async close(): Promise<void> {
    this.other?.end(undefined)
  }

  abort(error: Error): void {
    this.end(error)
    this.other?.end(new MeshError('PEERS_UNREACHABLE', 'reset by the other side'))
  }

  receive(bytes: Uint8Array): void {
    this.bytesReceived += bytes.byteLength
    this.#arrived.push(...this.#decoder.push(Uint8Array.from(bytes)))
    this.#wake?.()
  }

  end(error: Error | undefined): void {
    this.#ended = true
    this.#failure ??= error
    this.#wake?.()
  }
}

/** `[client's end, server's end]`; each end names the peer on the other side. */
export function streamPair(clientId: string, serverId: string): [FakeStream, FakeStream] {
  const [client, server] = [new FakeStream(serverId), new FakeStream(clientId)]
  client.other = server
  server.other = client
  return [client, server]
}
