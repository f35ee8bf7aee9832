import type { MessageStream, StreamMessageEvent } from '@libp2p/interface'
import {
  READ_BATCH_BYTES,
  READ_BATCH_MS,
  READ_BATCH_PIECES,
  SEND_GATHER_BYTES,
  SEND_SMALL_BYTES,
} from '../../protocol/constants.ts'

/**
 * The same connection, read and written in larger pieces. Every piece that comes from the socket, and every one that goes to
 * it, costs a walk through all layers, far more than its bytes do, and a link of 100 Mbit/s delivers thousands a second.
 *
 * - What is sent in one turn is put together. Noise hands over a length of 2 bytes, each piece of the ciphertext and the tag
 *   separately, and yamux a window update for each frame that it reads.
 * - While data streams in, in small pieces, the socket is left alone for a few milliseconds, so that the kernel gathers them.
 *   Single messages, such as those of a handshake, are not held up.
 */
export function batched(connection: MessageStream): MessageStream {
  const sender = new BatchedSender(connection)
  const reader = new BatchedReader(connection)
  const own: Partial<Record<PropertyKey, unknown>> = {
    send: sender.send.bind(sender),
    close: (options?: Parameters<MessageStream['close']>[0]) => {
      sender.flush()
      return connection.close(options)
    },
    pause: reader.pause.bind(reader),
    resume: reader.resume.bind(reader),
    addEventListener: reader.addEventListener.bind(reader),
    removeEventListener: reader.removeEventListener.bind(reader),
  }
  return new Proxy(connection, {
    get(target, name) {
      if (Object.hasOwn(own, name)) return own[name]
      const value = Reflect.get(target, name)
      // Its methods; what it owns, as the logger, is a function with properties perhaps.
      return typeof value === 'function' && !Object.hasOwn(target, name) ? value.bind(target) : value
    },
    set: (target, name, value) => Reflect.set(target, name, value),
  })
}

class BatchedSender {
  readonly #connection: MessageStream
  #waiting: Uint8Array[] = []
  #bytes = 0
  #urgent = false

  constructor(connection: MessageStream) {
    this.#connection = connection
  }

  /** Window updates and requests wait until all that was read in this turn is worked on; content leaves at once. */
  send(data: Parameters<MessageStream['send']>[0]): boolean {
    const connection = this.#connection
    if (connection.status !== 'open') return connection.send(data)
    if (this.#waiting.length === 0) setImmediate(() => this.flush())
    if (data instanceof Uint8Array) this.#waiting.push(data)
    else this.#waiting.push(...data)
    this.#bytes += data.byteLength
    if (this.#bytes >= SEND_GATHER_BYTES) this.flush()
    else if (this.#bytes > SEND_SMALL_BYTES && !this.#urgent) {
      this.#urgent = true
      queueMicrotask(() => this.flush())
    }
    return !connection.writableNeedsDrain
  }

  flush(): void {
    this.#urgent = false
    if (this.#waiting.length === 0) return
    const data = this.#waiting.length === 1 ? this.#waiting[0]! : Buffer.concat(this.#waiting, this.#bytes)
    this.#waiting = []
    this.#bytes = 0
    const connection = this.#connection
    try {
      // A connection that was closed meanwhile takes nothing.
      if (connection.status === 'open') connection.send(data)
    } catch (error) {
      connection.abort(error instanceof Error ? error : new Error(String(error)))
    }
  }
}

class BatchedReader {
  readonly #connection: MessageStream
  /** Pieces, and their bytes, that came since `#since`. */
  #pieces = 0
  #bytes = 0
  #since = 0
  /** Left alone by us, and stopped by the layer above. */
  #resting = false
  #stopped = false
  #listens = false

  constructor(connection: MessageStream) {
    this.#connection = connection
  }

  /** What comes while the layers above change hands waits for their listener, so ours must never be the only one. */
  addEventListener(...args: Parameters<MessageStream['addEventListener']>): void {
    this.#connection.addEventListener(...args)
    if (args[0] !== 'message' || this.#listens) return
    this.#listens = true
    this.#connection.addEventListener('message', this.#onMessage)
  }

  removeEventListener(...args: Parameters<MessageStream['removeEventListener']>): void {
    this.#connection.removeEventListener(...args)
    if (args[0] === 'message') this.#leaveIfAlone()
  }

  pause(): void {
    this.#stopped = true
    this.#connection.pause()
  }

  resume(): void {
    this.#stopped = false
    if (!this.#resting) this.#connection.resume()
  }

  readonly #onMessage = ({ data }: StreamMessageEvent): void => {
    this.#count(data.byteLength)
    this.#leaveIfAlone()
  }

  #leaveIfAlone(): void {
    if (!this.#listens || this.#connection.listenerCount('message') > 1) return
    this.#listens = false
    this.#connection.removeEventListener('message', this.#onMessage)
  }

  #count(bytes: number): void {
    const now = performance.now()
    if (now - this.#since > READ_BATCH_MS) {
      this.#since = now
      this.#pieces = 0
      this.#bytes = 0
    }
    this.#pieces++
    this.#bytes += bytes
    const small = this.#bytes < READ_BATCH_BYTES * this.#pieces
    if (this.#pieces < READ_BATCH_PIECES || !small || this.#resting || this.#stopped) return
    if (this.#connection.status !== 'open') return
    this.#resting = true
    this.#connection.pause()
    rest(() => this.#wake())
  }

  #wake(): void {
    this.#resting = false
    this.#pieces = READ_BATCH_PIECES - 1
    this.#bytes = 0
    this.#since = performance.now()
    if (this.#stopped || this.#connection.status !== 'open') return
    this.#connection.resume()
  }
}

/** Connections that rest are read again together, so that one wake-up serves all of them. */
const resting: (() => void)[] = []

function rest(wake: () => void): void {
  if (resting.length === 0) {
    setTimeout(() => {
      for (const one of resting.splice(0)) one()
    }, READ_BATCH_MS)
  }
  resting.push(wake)
}
