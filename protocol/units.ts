/**
 * Different kinds of numbers have different types, so that a length is never taken for a position. All are whole
 * numbers from 0 and below 2^53.
 */
declare const unit: unique symbol
type Unit<Name extends string> = number & { readonly [unit]: Name }

/** Position on a disk, in bytes from 0. */
export type ByteOffset = Unit<'ByteOffset'>
/** A length in bytes. */
export type ByteCount = Unit<'ByteCount'>

/** A checked number as a position or a length. Errors: RangeError unless it is a whole number from 0 below 2^53. */
export const byteOffset = (value: number): ByteOffset => natural(value) as ByteOffset
export const byteCount = (value: number): ByteCount => natural(value) as ByteCount

function natural(value: number): number {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`not a natural number: ${value}`)
  return value
}

/** How many blocks of `blockSize` cover `size` bytes; the last one may be partial. */
export function countBlocks(size: number, blockSize: number): number {
  return Math.ceil(size / blockSize)
}
