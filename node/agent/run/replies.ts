import { MAX_ADDRESSES_PER_PEER, MAX_MAC_ADDRESSES, MAX_MEMBERS, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import {
  anyText,
  list,
  literal,
  natural,
  nullable,
  object,
  optional,
  real,
  text,
  time,
  truth,
} from '../../../protocol/json-shape.ts'
import { isStagingStatus } from '../machine/events.ts'

// What a running command answers over the control socket, which may be of another version than this one.

const shortText = text(MAX_TEXT_BYTES)
/** A path, or what went wrong. */
const words = anyText(64 * 1024)
/** A token has at most 4096 characters; MAX_ADDRESSES_PER_PEER addresses among them. */
const token = anyText(MAX_ADDRESSES_PER_PEER * MAX_TEXT_BYTES)
const role = literal('master', 'operator', 'machine')
const uplinkBytes = object({ blocks: natural(), pages: natural(), metadata: natural() })

/** The answer to `status`. */
export const isStatus = object({
  event: literal('status'),
  running: truth,
  command: optional(shortText),
  pid: optional(natural()),
  site: shortText,
  siteId: shortText,
  name: shortText,
  id: shortText,
  role,
  group: optional(shortText),
  disk: optional(words),
  image: optional(shortText),
  release: optional(natural()),
  root: optional(shortText),
  size: optional(natural()),
  blocks: optional(object({ total: natural(), held: natural(), changed: natural(), unheld: natural() })),
  serving: optional(
    object({
      bytes: natural(),
      bytesPerSecond: real,
      clients: natural(),
      waiting: natural(),
      capped: optional(literal('rate', 'cpu')),
      inUse: truth,
    }),
  ),
  staging: optional(isStagingStatus),
  uplink: optional(
    list(
      object({
        site: shortText,
        in: uplinkBytes,
        out: uplinkBytes,
        peers: list(object({ name: shortText, in: natural(), out: natural() }), MAX_MEMBERS),
      }),
      MAX_MEMBERS,
    ),
  ),
  removed: optional(object({ at: optional(time) })),
  members: natural(),
  peers: natural(),
  metadataExpires: time,
  lastRestore: optional(
    object({
      verified: truth,
      release: nullable(natural()),
      startedAt: time,
      seconds: real,
      failure: optional(words),
    }),
  ),
})

/** The answer to `peers`. */
export const isPeers = object({
  event: literal('peers'),
  peers: list(
    object({
      id: shortText,
      name: shortText,
      role,
      site: shortText,
      group: shortText,
      mac: list(shortText, MAX_MAC_ADDRESSES),
      connected: truth,
      held: natural(),
      blocks: natural(),
      bytes: natural(),
      bad: natural(),
    }),
    MAX_MEMBERS,
  ),
})

/** The answer to `invite`. */
export const isInvited = object({
  event: literal('invitation'),
  token,
  site: shortText,
  siteId: shortText,
  uses: natural(),
  expires: time,
  role,
  group: shortText,
})

/** The answer to `remove`. */
export const isRemoved = object({ event: literal('removed'), name: shortText, id: shortText })
