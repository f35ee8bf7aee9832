/** Numbers of the NBD protocol, by the names of its specification (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). */

/** `NBDMAGIC`, `IHAVEOPT`, and what begins every option reply, request and reply. */
export const NBD_MAGIC = 0x4e42444d41474943n
export const OPTION_MAGIC = 0x49484156454f5054n
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n
export const REQUEST_MAGIC = 0x25609513
export const SIMPLE_REPLY_MAGIC = 0x67446698
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef

/** Handshake flags of server and client. */
export const FLAG_FIXED_NEWSTYLE = 1 << 0
export const FLAG_NO_ZEROES = 1 << 1

/** Options a client may send before transmission. */
export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const

/** Replies to options; errors have the highest bit set. */
export const REPLY = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 0x80000001,
  errPolicy: 0x80000002,
  errInvalid: 0x80000003,
  errTlsRequired: 0x80000005,
  errUnknown: 0x80000006,
  errTooBig: 0x80000009,
} as const

/** Items of information about an export. */
export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const

/** Transmission flags: what an export can do. */
export const TRANSMIT = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
} as const

/** Types of requests. */
export const COMMAND = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const

/** Flags of requests, one bit each. */
export const COMMAND_FLAG = {
  fua: 1 << 0,
  noHole: 1 << 1,
  df: 1 << 2,
  reqOne: 1 << 3,
  fastZero: 1 << 4,
} as const

/** Kinds of structured reply chunks; errors have bit 15 set. */
export const CHUNK = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const
/** Flag of the last chunk of a structured reply. */
export const CHUNK_FLAG_DONE = 1
/** Set in the type of every chunk that reports an error. */
export const CHUNK_ERROR_BIT = 0x8000

/** Errors of requests: the same numbers on every system. */
export const NBD_ERROR = {
  perm: 1,
  io: 5,
  noMemory: 12,
  invalid: 22,
  noSpace: 28,
  overflow: 75,
  notSupported: 95,
  shutdown: 108,
} as const

/** Bit of a dirty bitmap's context (`qemu:dirty-bitmap:NAME`, and our own). */
export const STATE_DIRTY = 1 << 0

/** Name of the context that tells holes from data. Our server calls every byte data. */
export const ALLOCATION_CONTEXT = 'base:allocation'

/** Bytes of a request without its data, of a simple reply without its data, of the head of a reply chunk. */
export const REQUEST_BYTES = 28
export const SIMPLE_REPLY_BYTES = 16
export const CHUNK_HEADER_BYTES = 20
/** Longest string the specification allows: names of exports and contexts. */
export const MAX_STRING_BYTES = 4096
