import type { Progress } from '../../disk/progress.ts'
import type { HookOutcome } from '../../hooks/run-hook.ts'
import type { Receipt } from '../../restore/receipt.ts'
import type { RollEvent } from '../../roll/roll-operator.ts'
import type { MachineConfig, ResetConfig } from '../../state/state-directory.ts'
import type { LogState } from '../../writelog/write-log.ts'
import type { ServingOptions } from '../offer/serving-limits.ts'
import type { StagingStatus } from '../stage/staging.ts'

/** The part of {@link MachineConfig} that a configuration file may say. */
export type ConfiguredMachine = Pick<MachineConfig, 'disk' | 'image'>

/** What every long-running command of the agent needs. */
export interface AgentOptions {
  /** Directory that holds this machine's key, trusted metadata, hash trees and receipts. */
  readonly stateDir: string
  /** Multiaddrs to listen on; default: the saved ones, else all interfaces on the default port. */
  readonly listen?: readonly string[]
  /** Whether peers are also looked for by multicast DNS. @default true */
  readonly mdns?: boolean
  /** What serving others may take of this machine. */
  readonly serving?: ServingOptions
  /** What the configuration file says this machine is; it goes before what `machine.json` says. */
  readonly configured?: ConfiguredMachine
  /** Names of the options whose values the configuration file says: it says them again the next time, so they are not remembered. */
  readonly fromFile?: ReadonlySet<string>
  /** How operators reset this machine; kept for the next time. */
  readonly reset?: ResetConfig
  /** Aborted when the user wants the command to stop. */
  readonly signal: AbortSignal
  readonly report: (event: AgentEvent) => void
}

/** What a command tells while it runs; the command line prints it, `--json` passes it on as it is. */
export type AgentEvent =
  | ({ type: 'progress'; peers?: number } & Progress)
  | { type: 'note'; text: string }
  | { type: 'warning'; text: string }
  | { type: 'listening'; peerId: string; addresses: string[] }
  | { type: 'serving'; image: string; release: number; blocks: number }
  | ({ type: 'staged'; image: string } & StagingStatus)
  | { type: 'monitoring'; disk: string; uri: string; state: LogState['state']; dirty: number; openMs: number }
  | ({ type: 'hook' } & HookOutcome)
  | { type: 'published'; published: Published }
  | { type: 'receipt'; receipt: Receipt }
  | { type: 'member'; id: string; name: string }
  | { type: 'peer'; id: string; name: string; up: boolean }
  | RollEvent

/** Result of `mesh seed`. */
export interface Published {
  readonly event: 'published'
  readonly image: string
  readonly release: number
  /** Root of the hash tree, hexadecimal. */
  readonly root: string
  readonly size: number
  readonly blockSize: number
  readonly seconds: number
  /** True when the disk still has the content of the newest release, so that nothing was published. */
  readonly unchanged: boolean
}

/** Result of `mesh join`. */
export interface Joined {
  readonly event: 'joined'
  readonly site: string
  readonly name: string
  readonly id: string
  readonly role: 'operator' | 'machine'
  /** Absent on a machine that manages no disk. */
  readonly image?: string
  readonly release?: number
}
