import type { ErrorCode } from '../../protocol/errors.ts'

/** A decoder, and what it promises for every input. */
export interface Target {
  readonly name: string
  /** The only errors that it may throw. */
  readonly errors: readonly ErrorCode[]
  /** Real encodings, from which inputs are made. */
  seeds(): readonly Uint8Array[] | Promise<readonly Uint8Array[]>
  /** Decodes; throws if a promise is broken. False: the input was refused without an error. */
  run(input: Buffer): unknown
  /** Whether all seeds are accepted. @default true */
  readonly takesSeeds?: boolean
  /** How many inputs the ordinary suite tries, if one takes long. @default 1000 */
  readonly inputsInSuite?: number
}
