import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import { DIGEST_SIZE_BYTES, MAX_TEXT_BYTES } from './constants.ts'
import type { Digest } from './digest.ts'
import { MeshError } from './errors.ts'

const MAX_UINT32 = 0xffffffff
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Reads protobuf fields that a stranger wrote (https://protobuf.dev/programming-guides/encoding/). Every value is
 * checked against its limit before memory is taken for it. Values are copied, so that a small value does not keep a
 * large frame in memory. Errors: PROTOCOL_VIOLATION; also RangeError or Error of the protobuf library where bytes are
 * missing or a varint is none.
 */
export class WireReader {
  readonly #reader: BinaryReader
  #wireType: WireType | undefined

  constructor(bytes: Uint8Array) {
    this.#reader = new BinaryReader(bytes)
  }

  get atEnd(): boolean {
    return this.#reader.pos >= this.#reader.len
  }

  /** The number of the next field. */
  tag(): number {
    const [field, wireType] = this.#reader.tag()
    this.#wireType = wireType
    return field
  }

  /** Calls the reader of every known field and skips the other fields, so that later versions may add some. */
  fields(readers: Readonly<Record<number, () => unknown>>): void {
    while (!this.atEnd) {
      const field = this.tag()
      const read = readers[field]
      if (read === undefined) this.#reader.skip(this.#wireType!, field)
      else read()
    }
  }

  uint(most = MAX_UINT32): number {
    this.#expect(WireType.Varint)
    return this.varint(most)
  }

  /** A varint without a tag, as in a packed list. */
  varint(most = MAX_UINT32): number {
    const value = Number(this.#reader.uint64())
    if (value > most) throw violation(`${value} is more than ${most}`)
    return value
  }

  bytes(most: number): Uint8Array {
    return Uint8Array.from(this.#view(most))
  }

  digest(): Digest {
    const value = this.bytes(DIGEST_SIZE_BYTES)
    if (value.byteLength !== DIGEST_SIZE_BYTES) throw violation('a digest has not 32 bytes')
    return value
  }

  text(most = MAX_TEXT_BYTES): string {
    return UTF8.decode(this.#view(most))
  }

  /** A message, or a packed list, within this one. */
  nested(): WireReader {
    return new WireReader(this.#view(Number.POSITIVE_INFINITY))
  }

  /** A part of the frame itself, not a copy. */
  #view(most: number): Uint8Array {
    this.#expect(WireType.LengthDelimited)
    const value = this.#reader.bytes()
    if (value.byteLength > most) throw violation(`${value.byteLength} bytes where ${most} are the most`)
    return value
  }

  #expect(wireType: WireType): void {
    if (this.#wireType !== wireType) throw violation(`a field has wire type ${this.#wireType} instead of ${wireType}`)
  }
}

/** The fault of a peer whose message breaks the protocol: PROTOCOL_VIOLATION with the reason. */
export function violation(why: string): MeshError {
  return new MeshError('PROTOCOL_VIOLATION', `a message breaks the protocol: ${why}`)
}
