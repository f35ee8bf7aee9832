import { MeshError } from '../../protocol/errors.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import { parseEraBlocks } from './era-blocks.ts'
import type { RunTool } from './system-tool.ts'

/** An era device that runs. */
export class RunningEra {
  readonly #name: string
  readonly #metadata: string
  readonly #run: RunTool

  constructor(name: string, metadata: string, run: RunTool) {
    this.#name = name
    this.#metadata = metadata
    this.#run = run
  }

  async currentEra(): Promise<number> {
    return (await this.#status()).era
  }

  /** Begins an era; returns its number. */
  async checkpoint(): Promise<number> {
    await this.#message('checkpoint')
    return this.currentEra()
  }

  /**
   * Units written in era `since` or later. They are read from a snapshot, which ends the current era and commits it. A
   * snapshot that a crash has left is of another time, and is dropped first.
   */
  async writtenSince(since: number): Promise<RangeSet> {
    if ((await this.#status()).snapshot) await this.#message('drop_metadata_snap')
    await this.#message('take_metadata_snap')
    try {
      // The kernel writes the metadata past the page cache, which is therefore dropped.
      await this.#run('blockdev', ['--flushbufs', this.#metadata])
      const args = ['--metadata-snapshot', '--written-since', String(since), this.#metadata]
      return parseEraBlocks(await this.#run('era_invalidate', args))
    } finally {
      await this.#message('drop_metadata_snap')
    }
  }

  async #message(text: string): Promise<void> {
    await this.#run('dmsetup', ['message', this.#name, '0', text])
  }

  async #status(): Promise<{ era: number; snapshot: boolean }> {
    const status = (await this.#run('dmsetup', ['status', this.#name])).trim()
    const [, era, snapshot] = /^\d+ \d+ era \d+ \d+\/\d+ (\d+) (-|\d+)$/.exec(status) ?? []
    if (era === undefined) throw new MeshError('ERA_FAILED', `the metadata of ${this.#name} have failed: ${status}`)
    return { era: Number(era), snapshot: snapshot !== '-' }
  }
}
