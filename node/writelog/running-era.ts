import { MeshError } from '../../protocol/errors.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import { parseEraBlocks } from './era-blocks.ts'
import type { RunTool } from './system-tool.ts'

/** An era device that runs. */
export class RunningEra {
  readonly #name: string
  readonly #metadata: { readonly path: string; readonly isFile: boolean }
  readonly #run: RunTool

  /** `metadata`: the device or file that the kernel keeps them on. */
  constructor(name: string, metadata: { readonly path: string; readonly isFile: boolean }, run: RunTool) {
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
   * The era that was running, and the units written in era `since` or later. They are read from a snapshot, which ends the current era and
   * commits it. A snapshot that a crash has left is of another time, and is dropped first.
   */
  async writtenSince(since: number): Promise<{ readonly era: number; readonly units: RangeSet }> {
    const { era, snapshot } = await this.#status()
    if (snapshot) await this.#message('drop_metadata_snap')
    await this.#message('take_metadata_snap')
    try {
      // To a device the kernel writes them past its page cache, which is therefore dropped; to a file through that of the file.
      const { path, isFile } = this.#metadata
      if (!isFile) await this.#run('blockdev', ['--flushbufs', path])
      const args = ['--metadata-snapshot', '--written-since', String(since), path]
      return { era, units: parseEraBlocks(await this.#run('era_invalidate', args)) }
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
