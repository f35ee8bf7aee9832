import type { MessageStream } from '@libp2p/interface'
import { SEND_GATHER_BYTES, SEND_SMALL_BYTES } from './limits.ts'

/**
 * The same connection, but what is sent in one turn is written together. Noise hands over a length of 2 bytes, each piece of
 * the ciphertext and the tag separately, and every one of them would be a write of its own; so would all the requests and
 * window updates that come of one read.
 */
export function batched(connection: MessageStream): MessageStream {
  const sender = new BatchedSender(connection)
  const own: Partial<Record<PropertyKey, unknown>> = {
    send: sender.send.bind(sender),
    close: (options?: Parameters<MessageStream['close']>[0]) => {
      sender.flush()
      return connection.close(options)
    },
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
