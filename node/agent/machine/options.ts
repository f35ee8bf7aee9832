import type { MachineConfig, ResetConfig, ServingConfig } from '../../state/machine-config.ts'
import type { AgentEvent } from './events.ts'

/** The part of {@link MachineConfig} that a configuration file may say. */
export type ConfiguredMachine = Pick<MachineConfig, 'disk' | 'image'>

/** What the user said about serving this time; null takes back what was said before. */
export type ServingOptions = { readonly [Key in keyof ServingConfig]?: ServingConfig[Key] | null | undefined }

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
  /** Name of the command, such as `restore` or `roll start`: other commands of this computer are told what runs. */
  readonly command?: string
  /** Version of the program, which operators are told. */
  readonly version?: string
  /** Aborted when the user wants the command to stop. */
  readonly signal: AbortSignal
  readonly report: (event: AgentEvent) => void
}
