/** The pieces of work that report how far they are. */
export const PHASES = ['copy', 'hash', 'repeats', 'tree', 'scan', 'restore', 'verify'] as const

/** A report of a long piece of work: its phase, and bytes done of bytes in all. */
export interface Progress {
  readonly phase: (typeof PHASES)[number]
  readonly doneBytes: number
  readonly totalBytes: number
}

/** Takes one report. A piece of work calls it as often as it likes; whoever shows reports drops most of them. */
export type ReportProgress = (progress: Progress) => void
