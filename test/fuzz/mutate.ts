import type { Random } from '../../tools/lab/random.ts'

/** Longest input, in bytes. */
export const MAX_INPUT_BYTES = 16 * 1024

/** Values at which decoders change their mind: lengths, varints, signs. */
const NUMBERS = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff]
const TEXTS = [
  '0',
  '-1',
  '1e999',
  '9007199254740993',
  'null',
  '""',
  '[]',
  '{}',
  '"__proto__"',
  '\u0000',
  '\uFEFF',
  '\r',
  ';',
  '\n',
  '\\',
  '"',
  '\u{1F600}',
]

type Mutation = (bytes: Buffer, random: Random, other: Buffer) => Buffer

const cut = (bytes: Buffer, from: number, to: number, put: Uint8Array): Buffer =>
  Buffer.concat([bytes.subarray(0, from), put, bytes.subarray(to)])

const MUTATIONS: readonly Mutation[] = [
  // A bit, a byte, a number of 1, 2 or 4 bytes, a varint.
  (bytes, random) => changed(bytes, random, (copy, at) => copy.writeUInt8(copy[at]! ^ (1 << random.below(8)), at)),
  (bytes, random) => changed(bytes, random, (copy, at) => copy.writeUInt8(random.below(256), at)),
  (bytes, random) => {
    const number = Buffer.alloc(4)
    number.writeUInt32BE(NUMBERS[random.below(NUMBERS.length)]!)
    if (random.below(2) === 0) number.reverse()
    const width = 2 ** random.below(3)
    const at = random.below(bytes.byteLength + 1)
    return cut(
      bytes,
      at,
      Math.min(bytes.byteLength, at + width),
      number.subarray(random.below(2) === 0 ? 0 : 4 - width).subarray(0, width),
    )
  },
  (bytes, random) => {
    const at = random.below(bytes.byteLength + 1)
    return cut(bytes, at, Math.min(bytes.byteLength, at + 1), Buffer.alloc(1 + random.below(10), 0xff))
  },
  // A piece goes, comes twice, or comes from another input.
  (bytes, random) => {
    const [from, to] = piece(bytes, random)
    return cut(bytes, from, to, Buffer.alloc(0))
  },
  (bytes, random) => {
    const [from, to] = piece(bytes, random)
    return cut(bytes, to, to, bytes.subarray(from, to))
  },
  (bytes, random, other) => {
    const [from, to] = piece(other, random)
    const at = random.below(bytes.byteLength + 1)
    return cut(
      bytes,
      at,
      random.below(2) === 0 ? at : Math.min(bytes.byteLength, at + to - from),
      other.subarray(from, to),
    )
  },
  (bytes, random) => bytes.subarray(0, random.below(bytes.byteLength + 1)),
  (bytes, random) => {
    const at = random.below(bytes.byteLength + 1)
    return cut(bytes, at, at, Buffer.from(TEXTS[random.below(TEXTS.length)]!))
  },
  // A number in a text.
  (bytes, random) => {
    const found = [...bytes.toString('latin1').matchAll(/\d+/g)]
    const one = found[random.below(Math.max(1, found.length))]
    if (one === undefined) return bytes
    const value = TEXTS[random.below(4)] ?? '0'
    return cut(bytes, one.index, one.index + one[0].length, Buffer.from(value))
  },
]

function changed(bytes: Buffer, random: Random, change: (copy: Buffer, at: number) => void): Buffer {
  if (bytes.byteLength === 0) return Buffer.of(random.below(256))
  const copy = Buffer.from(bytes)
  change(copy, random.below(copy.byteLength))
  return copy
}

function piece(bytes: Buffer, random: Random): [number, number] {
  const from = random.below(bytes.byteLength + 1)
  return [from, Math.min(bytes.byteLength, from + 1 + random.below(random.below(8) === 0 ? 2048 : 16))]
}

/** An input like this one, changed in one to eight places. */
export function mutate(bytes: Buffer, other: Buffer, random: Random): Buffer {
  let now = bytes
  for (let i = 2 ** random.below(4); i > 0; i--) now = MUTATIONS[random.below(MUTATIONS.length)]!(now, random, other)
  return now.subarray(0, MAX_INPUT_BYTES)
}
