/** What a long piece of work tells about itself. */
export interface Progress {
  readonly phase: 'hash' | 'repeats' | 'tree' | 'scan' | 'restore' | 'verify'
  readonly doneBytes: number
  readonly totalBytes: number
}

export type ReportProgress = (progress: Progress) => void
