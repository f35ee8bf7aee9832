import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'

/** Writes protobuf fields; zero and empty values are left out, as protobuf does. Read back by WireReader. */
export class WireWriter {
  readonly #writer = new BinaryWriter()

  uint(field: number, value: number): void {
    if (value !== 0) this.#writer.tag(field, WireType.Varint).uint64(value)
  }

  bytes(field: number, value: Uint8Array): void {
    if (value.byteLength > 0) this.#writer.tag(field, WireType.LengthDelimited).bytes(value)
  }

  text(field: number, value: string): void {
    if (value !== '') this.#writer.tag(field, WireType.LengthDelimited).string(value)
  }

  /** A packed list of varints; an empty one is written too. */
  varints(field: number, values: Iterable<number>): void {
    this.#writer.tag(field, WireType.LengthDelimited).fork()
    for (const value of values) this.#writer.uint64(value)
    this.#writer.join()
  }

  /** A message within this one, made by `write`; an empty one is written too. */
  group<T>(field: number, value: T, write: (w: WireWriter, value: T) => void): void {
    this.#writer.tag(field, WireType.LengthDelimited).fork()
    write(this, value)
    this.#writer.join()
  }

  finish(): Uint8Array {
    return this.#writer.finish()
  }
}
