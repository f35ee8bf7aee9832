import assert from 'node:assert/strict'
import { MAX_FRAME_HEADER_BYTES, MAX_FRAME_PAYLOAD_BYTES } from './constants.ts'
import { MeshError } from './errors.ts'
import { decodeMessage, encodeMessage, type Message } from './messages.ts'

/** A frame is: u32 header length, u32 payload length (both big endian), header, payload. */
const PREFIX_BYTES = 8

/** The pieces of one frame, to be sent in this order; the payload is not copied. */
export function encodeFrame(message: Message): Uint8Array[] {
  const header = encodeMessage(message)
  const payload = 'payload' in message ? message.payload : undefined
  assert(header.byteLength <= MAX_FRAME_HEADER_BYTES, `${message.type} has a header of ${header.byteLength} bytes`)
  assert((payload?.byteLength ?? 0) <= MAX_FRAME_PAYLOAD_BYTES, `${message.type} carries ${payload?.byteLength} bytes`)
  const start = Buffer.allocUnsafe(PREFIX_BYTES + header.byteLength)
  start.writeUInt32BE(header.byteLength, 0)
  start.writeUInt32BE(payload?.byteLength ?? 0, 4)
  start.set(header, PREFIX_BYTES)
  return payload === undefined || payload.byteLength === 0 ? [start] : [start, payload]
}

/**
 * Takes bytes as they arrive and gives each message once it is complete. A length is checked before a buffer of that
 * length is made. Every byte is copied once, into the frame that it belongs to.
 */
export class FrameDecoder {
  readonly #prefix = Buffer.alloc(PREFIX_BYTES)
  #prefixFilled = 0
  #frame: Uint8Array | undefined
  #frameFilled = 0
  #headerLength = 0

  /** Whether the bytes so far end exactly where a frame ends. */
  get atBoundary(): boolean {
    return this.#prefixFilled === 0
  }

  /** Errors: PROTOCOL_VIOLATION; the decoder must not be used after it. */
  push(chunk: Uint8Array): Message[] {
    const messages: Message[] = []
    let at = 0
    while (at < chunk.byteLength) {
      if (this.#frame === undefined) {
        const take = Math.min(PREFIX_BYTES - this.#prefixFilled, chunk.byteLength - at)
        this.#prefix.set(chunk.subarray(at, at + take), this.#prefixFilled)
        this.#prefixFilled += take
        at += take
        if (this.#prefixFilled === PREFIX_BYTES) this.#frame = this.#begin()
      } else {
        const take = Math.min(this.#frame.byteLength - this.#frameFilled, chunk.byteLength - at)
        this.#frame.set(chunk.subarray(at, at + take), this.#frameFilled)
        this.#frameFilled += take
        at += take
      }
      if (this.#frame !== undefined && this.#frameFilled === this.#frame.byteLength)
        messages.push(this.#finish(this.#frame))
    }
    return messages
  }

  #begin(): Uint8Array {
    this.#headerLength = this.#prefix.readUInt32BE(0)
    const payloadLength = this.#prefix.readUInt32BE(4)
    if (
      this.#headerLength === 0 ||
      this.#headerLength > MAX_FRAME_HEADER_BYTES ||
      payloadLength > MAX_FRAME_PAYLOAD_BYTES
    ) {
      throw new MeshError(
        'PROTOCOL_VIOLATION',
        `a frame of ${this.#headerLength} header and ${payloadLength} payload bytes breaks the limits`,
      )
    }
    return Buffer.allocUnsafeSlow(this.#headerLength + payloadLength)
  }

  #finish(frame: Uint8Array): Message {
    this.#frame = undefined
    this.#frameFilled = 0
    this.#prefixFilled = 0
    return decodeMessage(frame.subarray(0, this.#headerLength), frame.subarray(this.#headerLength))
  }
}
