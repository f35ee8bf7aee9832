import {
  MAX_ADDRESSES_PER_PEER,
  MAX_MAC_ADDRESSES,
  MAX_MEMBERS,
  MAX_TEXT_BYTES,
  MAX_TWINS,
} from '../../../protocol/constants.ts'
import {
  anyText,
  type Check,
  list,
  literal,
  natural,
  object,
  optional,
  real,
  text,
  time,
  truth,
} from '../../../protocol/json-shape.ts'
import { isStagingStatus } from '../machine/events.ts'
import type { Live } from './status.ts'

// What a running command answers over the control socket, which may be of another version than this one.

const shortText = text(MAX_TEXT_BYTES)
/** A token has at most 4096 characters; MAX_ADDRESSES_PER_PEER addresses among them. */
const token = anyText(MAX_ADDRESSES_PER_PEER * MAX_TEXT_BYTES)
const role = literal('master', 'operator', 'machine')
const blockCounts = object({ total: natural(), held: natural(), changed: natural(), unheld: natural() })
/** Images that one master can have the disks of, and to spare. */
const MAX_IMAGES = 1024
const uplinkBytes = object({ blocks: natural(), pages: natural(), metadata: natural() })

const isShared = object({
  machines: list(
    object({
      instance: shortText,
      host: anyText(MAX_TEXT_BYTES),
      disk: anyText(MAX_TEXT_BYTES),
      mac: list(shortText, MAX_MAC_ADDRESSES),
      addresses: list(shortText, MAX_ADDRESSES_PER_PEER),
    }),
    MAX_TWINS,
  ),
  at: time,
})

/** The answer to `live`. */
export const isLive: Check<Live> = object({
  image: optional(shortText),
  release: optional(natural()),
  root: optional(shortText),
  size: optional(natural()),
  blocks: optional(blockCounts),
  others: optional(list(object({ image: shortText, release: natural(), blocks: blockCounts }), MAX_IMAGES)),
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
  clients: optional(
    list(
      object({
        name: shortText,
        connections: natural(),
        streams: natural(),
        openBytes: natural(),
        messagesPerSecond: real,
      }),
      MAX_MEMBERS,
    ),
  ),
  memberMost: optional(object({ connections: natural(), streams: natural(), openBytes: natural() })),
  banned: optional(list(object({ name: shortText, until: time, reason: anyText(MAX_TEXT_BYTES) }), MAX_MEMBERS)),
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
  twins: optional(isShared),
  peers: natural(),
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
      twins: optional(isShared),
      macNow: optional(list(shortText, MAX_MAC_ADDRESSES)),
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
  warning: optional(anyText(MAX_ADDRESSES_PER_PEER * MAX_TEXT_BYTES)),
})

/** The answer to `remove`. */
export const isRemoved = object({ event: literal('removed'), name: shortText, id: shortText })
