import type { Command } from 'commander'
import type { ServingOptions } from '../../node/agent/machine/options.ts'
import { parseMaxCpu, parseMaxPeers, parseMaxUpload, parseNice, parseText, parseUplink } from './parse.ts'

/** What commander read of these options. `maxUpload` in bytes per second, `maxCpu` in cores; 0 for no limit. */
export interface ServingFlags {
  maxUpload?: number
  maxCpu?: number
  maxPeers?: number
  nice?: number
  inUseCheck?: string
  uplink?: string
  uplinkStrict?: boolean
}

/** Adds the options that say what serving others may take of this machine; they are kept for the next time. */
export function withServingOptions(command: Command): Command {
  return command
    .option(
      '--max-upload <rate>',
      'send others no more than this, such as 50Mbit, or none (remembered)',
      parseMaxUpload,
    )
    .option('--max-cpu <share>', 'serve others only below this share of one core, such as 50%, or none', parseMaxCpu)
    .option('--max-peers <n>', 'serve so many machines at a time, or none for no limit', parseMaxPeers)
    .option(
      '--uplink <rule>',
      'what may cross to and from other sites, such as "5 Mbit/s, 20:00-06:00; 1 Mbit/s", or none for no limit',
      parseUplink,
    )
    .option('--uplink-strict', 'let nothing cross outside of those windows, not even for a restore')
    .option('--no-uplink-strict', 'what a restore needs may cross outside of them, at the lowest rate (default)')
    .option('--nice <n>', 'priority while serving, 0 to 19 (default: 10)', parseNice)
    .option(
      '--in-use-check <command>',
      'prints something while somebody uses the machine (default: who), or none',
      parseText,
    )
}

/** The flags as the agent takes them: undefined leaves what is remembered, null takes a limit away. */
export function servingOf(flags: ServingFlags): ServingOptions {
  const { maxUpload, maxCpu, maxPeers, nice, inUseCheck, uplink, uplinkStrict } = flags
  return {
    maxUpload: limit(maxUpload),
    maxCpu: limit(maxCpu),
    maxPeers: limit(maxPeers),
    nice,
    uplink: uplink === 'none' ? null : uplink,
    uplinkStrict,
    inUseCheck: inUseCheck === 'none' ? '' : inUseCheck,
  }
}

/** `none` was read as 0, and null takes a limit away. */
function limit(value: number | undefined): number | null | undefined {
  return value === 0 ? null : value
}
