import { MeshError } from '../../protocol/errors.ts'
import type { Agreement } from './handshake.ts'
import { NBD_MAX_REQUEST_BYTES } from './limits.ts'
import { COMMAND, COMMAND_FLAG, NBD_ERROR, REQUEST_MAGIC } from './nbd-protocol.ts'

/** One request of a client. */
export interface NbdRequest {
  readonly command: number
  readonly flags: number
  /** The client's name for the request, which goes into the reply. Two halves of 32 bits cost less than a bigint. */
  readonly cookieHigh: number
  readonly cookieLow: number
  /** Exact up to 2^53; no export is larger. */
  readonly offset: number
  readonly length: number
}

const { fua, noHole, df, reqOne } = COMMAND_FLAG

/**
 * Flags that a command may carry. FUA must be accepted on every command, and means nothing on those that do not write.
 */
const FLAGS_ALLOWED: Readonly<Record<number, number>> = {
  [COMMAND.read]: fua | df,
  [COMMAND.write]: fua,
  [COMMAND.flush]: fua,
  [COMMAND.trim]: fua,
  [COMMAND.cache]: fua,
  [COMMAND.writeZeroes]: fua | noHole,
  [COMMAND.blockStatus]: fua | reqOne,
}

/**
 * Reads the header at `at`, REQUEST_BYTES long. Errors: NBD_PROTOCOL; nobody knows then where the next request begins.
 */
export function parseRequest(bytes: Buffer, at: number): NbdRequest {
  if (bytes.readUInt32BE(at) !== REQUEST_MAGIC)
    throw new MeshError('NBD_PROTOCOL', 'a request does not begin with its magic number')
  return {
    flags: bytes.readUInt16BE(at + 4),
    command: bytes.readUInt16BE(at + 6),
    cookieHigh: bytes.readUInt32BE(at + 8),
    cookieLow: bytes.readUInt32BE(at + 12),
    offset: bytes.readUInt32BE(at + 16) * 2 ** 32 + bytes.readUInt32BE(at + 20),
    length: bytes.readUInt32BE(at + 24),
  }
}

/** The error number of a request that cannot be served as it stands; 0 for none. */
export function checkRequest({ command, flags, offset, length }: NbdRequest, agreement: Agreement): number {
  const { export: served, contexts, structured } = agreement
  const allowed = FLAGS_ALLOWED[command]
  if (allowed === undefined || (flags & ~allowed) !== 0) return NBD_ERROR.invalid
  if ((flags & df) !== 0 && !structured) return NBD_ERROR.invalid
  if (command === COMMAND.flush) return 0
  if (served.readOnly && isChange(command)) return NBD_ERROR.perm
  if (length === 0) return NBD_ERROR.invalid
  if (length > NBD_MAX_REQUEST_BYTES && carriesData(command))
    // This error tells clients that understand it to ask for less.
    return command === COMMAND.read && structured ? NBD_ERROR.overflow : NBD_ERROR.invalid
  if (offset + length > served.size)
    return command === COMMAND.write || command === COMMAND.writeZeroes ? NBD_ERROR.noSpace : NBD_ERROR.invalid
  if (command === COMMAND.blockStatus && contexts.length === 0) return NBD_ERROR.invalid
  return 0
}

/** Whether data travels with a request or its reply. */
export function carriesData(command: number): boolean {
  return command === COMMAND.read || command === COMMAND.write
}

/** Whether the command may change what the export holds. */
export function isChange(command: number): boolean {
  return command === COMMAND.write || command === COMMAND.trim || command === COMMAND.writeZeroes
}
