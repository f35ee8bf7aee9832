import type { DirtKind } from './dirt.ts'

/** Where the image can be had besides the machines: on the LAN, behind the uplink, or in both places. */
export const SOURCES = ['master', 'central', 'both'] as const
type SourceKind = (typeof SOURCES)[number]

/** What the image is made of: bytes that nothing compresses, or the files of this machine's system. */
export const CONTENTS = ['random', 'system'] as const

/** Whether a write log knows what a session wrote. */
export const LOGS = ['known', 'none'] as const

/** One run of the lab, as the command line describes it. */
export interface LabOptions {
  readonly scenario: 'provision' | 'restore' | 'update'
  readonly machines: number
  /** Bytes of the image. */
  readonly size: number
  /** Bits per second of each port of the LAN and of the uplink; undefined: not limited. */
  readonly rate?: number
  readonly uplink?: number
  readonly from: SourceKind
  readonly content: (typeof CONTENTS)[number]
  readonly seed: number
  readonly mdns: boolean
  /** Whether the bundle is made and run; otherwise the sources run. */
  readonly build: boolean
  /** Part of the image that is dirtied, or that the next release changes. */
  readonly share: number
  readonly dirt: DirtKind
  readonly log: (typeof LOGS)[number]
  /** Update: the machines fetch the release ahead, and are restarted when all have it. */
  readonly staged: boolean
  /** The machine that fetches most over the uplink is killed in the middle, and started again. */
  readonly killFetcher: boolean
}

/** Name of the machine that publishes. */
export function publisherOf({ from }: Pick<LabOptions, 'from'>): 'master' | 'central' {
  return from === 'central' ? 'central' : 'master'
}

/** Names of `count` machines: pc1, pc2, … */
export function machineNames(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `pc${i + 1}`)
}
