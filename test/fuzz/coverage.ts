import { type Profiler, Session } from 'node:inspector/promises'

const OWN_CODE = /\/(protocol|node|tools)\/[^?]*\.ts$/

/** Which parts of our own code have run, by the coverage of V8. */
export class Coverage {
  readonly #session = new Session()
  readonly #seen = new Set<string>()

  static async start(): Promise<Coverage> {
    const coverage = new Coverage()
    coverage.#session.connect()
    await coverage.#session.post('Profiler.enable')
    await coverage.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
    return coverage
  }

  /** Parts of the code seen so far. */
  get size(): number {
    return this.#seen.size
  }

  /** How many parts have run since the last call that had never run before. */
  async fresh(): Promise<number> {
    const before = this.#seen.size
    const { result } = (await this.#session.post(
      'Profiler.takePreciseCoverage',
    )) as Profiler.TakePreciseCoverageReturnType
    for (const script of result) {
      if (!OWN_CODE.test(script.url)) continue
      for (const { ranges } of script.functions) this.#note(script.scriptId, ranges)
    }
    return this.#seen.size - before
  }

  /** Counts are noted by their order of magnitude, so that a loop that runs oftener is new, too. */
  #note(script: string, ranges: readonly Profiler.CoverageRange[]): void {
    for (const { startOffset, endOffset, count } of ranges)
      if (count > 0)
        this.#seen.add(`${script}:${startOffset}:${endOffset}:${Math.min(6, Math.floor(Math.log2(count)))}`)
  }

  stop(): void {
    this.#session.disconnect()
  }
}
