/** A report of a long piece of work: its phase, and bytes done of bytes in all. */
export interface Progress {
  readonly phase: 'copy' | 'hash' | 'repeats' | 'tree' | 'scan' | 'restore' | 'verify'
  readonly doneBytes: number
  readonly totalBytes: number
}

/** Takes one report. A piece of work calls it as often as it likes; whoever shows reports drops most of them. */
export type ReportProgress = (progress: Progress) => void
