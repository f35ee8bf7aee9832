import type { Command } from 'commander'
import type { ServingOptions } from '../../node/agent/machine/options.ts'
import { parseSize, parseStageRate } from './parse.ts'

/** What commander read of these options: bytes, and bytes per second with 0 for no limit. */
export interface StagingFlags {
  stageSpace?: number
  stageRate?: number
}

/** Adds the options that say what fetching a coming release ahead may take; they are kept for the next time. */
export function withStagingOptions(command: Command): Command {
  return command
    .option(
      '--stage-space <size>',
      'keep so much of a coming release beside the disk (default: 4G; 0: none)',
      parseSize,
    )
    .option('--stage-rate <rate>', 'fetch it no faster than this, such as 5Mbit, or none (default)', parseStageRate)
}

/** The flags as the agent takes them. */
export function stagingOf({ stageSpace, stageRate }: StagingFlags): ServingOptions {
  // `none` was read as 0.
  return { stageSpace, stageRate: stageRate === 0 ? null : stageRate }
}
