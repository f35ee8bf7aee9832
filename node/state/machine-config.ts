import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
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
  truth,
  which,
} from '../../protocol/json-shape.ts'
import { FACT_NAMES, type FactName, type KnownDisk } from '../disk/known-disk.ts'

/** What serving may take of a machine. A value is there only if the user gave it. */
export interface ServingConfig {
  /** Bytes per second. */
  readonly maxUpload?: number
  /** Part of one core: 0.5 is half of it. */
  readonly maxCpu?: number
  /** Machines that are served at the same time. */
  readonly maxPeers?: number
  /** Priority, as nice(1) counts. */
  readonly nice?: number
  /** What may cross the uplink, as `parseUplinkRule` reads it. Strict: nothing crosses outside of its windows. */
  readonly uplink?: string
  readonly uplinkStrict?: boolean
  /** Command that prints something while somebody uses the machine. Empty: nobody looks. */
  readonly inUseCheck?: string
  /** Bytes of a coming release that are kept beside the disk; 0: none. */
  readonly stageSpace?: number
  /** Bytes per second at which a coming release is fetched ahead. */
  readonly stageRate?: number
}

/** How a machine is reset from afar: commands of the shell. A value is there only if the user gave it. */
export interface ResetConfig {
  /** The command that resets. Empty: the machine is not reset from afar. */
  readonly command?: string
  /** The command that shows its standard input to whoever uses the machine. */
  readonly warnCommand?: string
}

/** What a machine was told to be: `machine.json` in the state directory. */
export interface MachineConfig {
  /** Name of the site, for people. */
  readonly site: string
  /** SHA-256 of the site's first root metadata, hexadecimal. It identifies the site. */
  readonly siteId: string
  /** Name of this machine within the site. */
  readonly name: string
  /** Peer id of this machine. */
  readonly id: string
  readonly role: 'master' | 'operator' | 'machine'
  /** Image this machine is to have. */
  readonly image?: string
  /** Absolute path of the managed disk. */
  readonly disk?: string
  /** What that disk is known by, whatever its path; absent until a disk was looked at. */
  readonly diskIdentity?: KnownDisk
  /** Multiaddrs to listen on. */
  readonly listen: readonly string[]
  readonly serving?: ServingConfig
  readonly reset?: ResetConfig
  /** State directories of the other managed disks of this computer. */
  readonly beside?: readonly string[]
  /** Path from this state directory to that of the machine, if this one is of a further partition of it. */
  readonly partOf?: string
  /** That partition is a system that people choose. */
  readonly system?: boolean
}

/** A path, a command of the shell. */
const isWords = anyText(64 * 1024)
const isPositive = which(real, (value) => value > 0)
/** Lists that people have made. */
const MAX_LIST = 1024

/** What a disk is known by must be this. */
export const isKnownDisk: Check<KnownDisk> = object({
  kind: literal('file', 'disk', 'partition', 'loop', 'mapped', 'raid'),
  size: natural(),
  sectorBytes: optional(natural()),
  model: optional(isWords),
  link: optional(isWords),
  facts: object(
    Object.fromEntries(FACT_NAMES.map((name) => [name, optional(isWords)])) as {
      [Name in FactName]: ReturnType<typeof optional<string>>
    },
  ),
})

/** What `machine.json` must be. */
export const isMachineConfig: Check<MachineConfig> = object({
  site: text(MAX_TEXT_BYTES),
  siteId: which(text(MAX_TEXT_BYTES), (hex) => /^[0-9a-f]{64}$/.test(hex)),
  name: text(MAX_TEXT_BYTES),
  id: text(MAX_TEXT_BYTES),
  role: literal('master', 'operator', 'machine'),
  image: optional(text(MAX_TEXT_BYTES)),
  disk: optional(isWords),
  diskIdentity: optional(isKnownDisk),
  listen: list(text(MAX_TEXT_BYTES), MAX_LIST),
  serving: optional(
    object({
      maxUpload: optional(isPositive),
      maxCpu: optional(isPositive),
      maxPeers: optional(natural()),
      nice: optional(which(real, (value) => Number.isSafeInteger(value))),
      uplink: optional(text(MAX_TEXT_BYTES)),
      uplinkStrict: optional(truth),
      inUseCheck: optional(isWords),
      stageSpace: optional(which(real, (value) => value >= 0)),
      stageRate: optional(isPositive),
    }),
  ),
  reset: optional(object({ command: optional(isWords), warnCommand: optional(isWords) })),
  beside: optional(list(isWords, MAX_LIST)),
  partOf: optional(isWords),
  system: optional(truth),
})
