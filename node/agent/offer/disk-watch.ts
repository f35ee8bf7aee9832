import { stat } from 'node:fs/promises'
import { isMeshError } from '../../../protocol/errors.ts'
import type { RangeSet } from '../../../protocol/ranges.ts'
import type { HashPool } from '../../disk/hash-pool.ts'
import { scanDisk } from '../../restore/scan.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import { DEVICE_SCAN_EVERY_MS, DISK_WATCH_TICK_MS } from './limits.ts'

/** What a {@link DiskWatch} looks at, and whom it tells. */
interface DiskWatchOptions {
  readonly path: string
  /** How the disk was ({@link diskStamp}) before it was found out what it holds: what has changed since is a change. */
  readonly since: string
  readonly source: DiskSource
  readonly preserve: RangeSet
  readonly pool: HashPool
  /** Called with the number of changed blocks when it grew. */
  readonly changed: (blocks: number) => void
  /** Called when the disk has become shorter than the image, so that nothing of it is offered any more. */
  readonly shrunk: () => void
}

/**
 * Notices that a published disk was changed afterwards. A file is read again when its time of change moves, a device now and then.
 * Blocks that no longer match are not offered any more. Serving hashes every block anyway: this watch is for people, who are to
 * hear of the change in time, and not for safety.
 */
export class DiskWatch {
  readonly #options: DiskWatchOptions
  readonly #stop = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #stamp: string
  #scanning: Promise<void> | undefined

  constructor(options: DiskWatchOptions) {
    this.#options = options
    this.#stamp = options.since
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#scanning ??= this.#look()
        // Who uses a disk that cannot be read says so. The watch only looks again later.
        .catch(() => undefined)
        .finally(() => {
          this.#scanning = undefined
        })
    }, DISK_WATCH_TICK_MS)
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#stop.abort()
    await this.#scanning
  }

  async #look(): Promise<void> {
    const stamp = await diskStamp(this.#options.path)
    if (stamp === this.#stamp) return
    const { source, path, preserve, pool, changed } = this.#options
    const scanned = await scanDisk({
      pool,
      path,
      tree: source.tree,
      preserve,
      phase: 'scan',
      progress: () => undefined,
      signal: this.#stop.signal,
    }).catch((error: unknown) => {
      if (!isMeshError(error, 'DISK_SHRUNK')) throw error
      return undefined
    })
    this.#stamp = stamp
    if (scanned === undefined) {
      this.#withdraw()
      return
    }
    const { dirty } = scanned
    const before = source.heldCount
    for (let block = 0; block < dirty.length; block++) {
      if (dirty.has(block)) source.lost(block)
      else if (!preserve.has(block)) source.gained(block)
    }
    if (source.heldCount < before) changed(dirty.count)
  }

  /** A disk that somebody has cut short is being replaced: what is left of it is not for others. */
  #withdraw(): void {
    const { source, shrunk } = this.#options
    if (source.heldCount === 0) return
    for (const block of source.held().values()) source.lost(block)
    shrunk()
  }
}

/** Another text if a file was written in between, and now and then for a device; empty if nothing can be seen at the path. */
export async function diskStamp(path: string): Promise<string> {
  const facts = await stat(path).catch(() => undefined)
  if (facts === undefined) return ''
  if (facts.isFile()) return `${facts.mtimeMs} ${facts.size}`
  return String(Math.floor(performance.now() / DEVICE_SCAN_EVERY_MS))
}
