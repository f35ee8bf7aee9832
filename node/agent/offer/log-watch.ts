import { stat } from 'node:fs/promises'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { ImageDisk } from '../../disk/image-disk.ts'
import { audit } from '../../restore/audit.ts'
import { DirtyBlocks } from '../../restore/dirty-blocks.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { LogConfig } from '../log/log-config.ts'
import { recordLogDoubt } from '../log/log-doubt.ts'
import { peekLog } from '../log/log-peek.ts'
import type { AgentEvent } from '../machine/events.ts'
import { secureRandom } from '../machine/secure-random.ts'
import { LOG_WATCH_TICK_MS, TRACKER_WATCH_TICK_MS } from './limits.ts'

/** What a {@link LogWatch} works with. */
interface LogWatchOptions {
  readonly config: LogConfig
  readonly state: StateDirectory
  readonly manifest: VerifiedManifest
  readonly disk: ImageDisk
  readonly source: DiskSource
  readonly report: (event: AgentEvent) => void
}

/**
 * Watches the write log while a machine serves its disk and a session writes to it. What the log calls dirty is not offered to others.
 * What changed without the log's knowledge is reported, and remembered, so that the next restore scans the disk.
 */
export class LogWatch {
  readonly #options: LogWatchOptions
  readonly #stop = new AbortController()
  #timer: NodeJS.Timeout | undefined
  /** What the log's storage looked like when it was read last. */
  #stamp = ''
  /** The look that has not begun yet, if one was asked for; and the end of the last one. */
  #next: Promise<Bitmap | undefined> | undefined
  #last: Promise<unknown> = Promise.resolve()
  #auditing: Promise<void> = Promise.resolve()
  readonly #missed = new Set<number>()

  constructor(options: LogWatchOptions) {
    this.#options = options
  }

  /** Resolves when nothing dirty is offered any more; then goes on watching, and audits a sample of the rest. */
  async start(): Promise<void> {
    this.#options.source.onMismatch = (block) => void this.#mismatch(block).catch((error) => this.#warn(error))
    if ((await this.#lookSoon()) === undefined) return
    const tickMs = this.#options.config.source === 'nbd' ? LOG_WATCH_TICK_MS : TRACKER_WATCH_TICK_MS
    this.#timer = setInterval(() => void this.#tick().catch((error) => this.#warn(error)), tickMs)
    this.#auditing = this.#audit().catch((error) => this.#warn(error))
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#stop.abort()
    await Promise.allSettled([this.#auditing, this.#last])
  }

  /** A log in a file is read only if it was written. */
  async #tick(): Promise<void> {
    const stamp = await stampOf(this.#options.config.storage)
    if (stamp !== '' && stamp === this.#stamp) return
    await this.#lookSoon()
    this.#stamp = stamp
  }

  /** A look at the log that has not begun yet. All who ask before it begins share it: a look at a tracker may take seconds. */
  #lookSoon(): Promise<Bitmap | undefined> {
    this.#next ??= this.#last.then(() => {
      this.#next = undefined
      return this.#look()
    })
    this.#last = this.#next.catch(() => undefined)
    return this.#next
  }

  /** Takes what the log calls dirty off the offer, and returns it; undefined if the log does not know. */
  async #look(): Promise<Bitmap | undefined> {
    const { config, disk, manifest, source } = this.#options
    const log = await peekLog(config, disk.device.path)
    if (log.state === 'unknown' || log.root !== toHex(manifest.root)) return undefined
    const { blocks } = DirtyBlocks.fromLog(log.dirty, log.unitSize, manifest)
    for (const index of blocks.values()) source.lost(index)
    return blocks
  }

  /** A block is not what it should be. If the log does not call it dirty by now, the log has missed a write. */
  async #mismatch(block: number): Promise<void> {
    const { disk, state, report } = this.#options
    const dirty = await this.#lookSoon()
    if (dirty === undefined || dirty.has(block) || this.#missed.has(block)) return
    this.#missed.add(block)
    await recordLogDoubt(state, `block ${block} changed without the log’s knowledge`)
    const text = `block ${block} of ${disk.device.path} changed without the write log’s knowledge; the next restore will read the whole disk`
    report({ type: 'warning', text })
  }

  async #audit(): Promise<void> {
    const { disk, source } = this.#options
    const clean = Bitmap.fromRanges(disk.blockCount, source.held())
    const { wrong } = await audit({ disk, tree: source.tree, clean, random: secureRandom, signal: this.#stop.signal })
    if (wrong === undefined) return
    source.lost(wrong)
    await this.#mismatch(wrong)
  }

  #warn(error: unknown): void {
    if (this.#stop.signal.aborted) return
    if (!isMeshError(error)) throw error
    this.#options.report({ type: 'warning', text: `the write log cannot be read: ${error.message}` })
  }
}

/** '' for storage that is no file. */
async function stampOf(path: string): Promise<string> {
  const facts = await stat(path, { bigint: true }).catch(() => undefined)
  return facts?.isFile() === true ? `${facts.mtimeNs}` : ''
}
