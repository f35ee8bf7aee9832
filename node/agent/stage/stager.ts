import { isMeshError } from '../../../protocol/errors.ts'
import type { ServingConfig } from '../../state/state-directory.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { AgentEvent, StagingStatus } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { pause } from '../machine/pause.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { NEWS_POLL_MS, STAGE_IN_USE_RATE, STAGE_IN_USE_SHARE, STAGE_RETRY_MS, STAGE_SPACE_BYTES } from './limits.ts'
import { Staging } from './staging.ts'

export interface StagerOptions {
  readonly machine: Machine
  readonly node: MeshNode
  /** The release that is on the disk, and the disk. */
  readonly manifest: VerifiedManifest
  readonly source: DiskSource
  readonly config: Pick<ServingConfig, 'stageSpace' | 'stageRate'>
  readonly report: (event: AgentEvent) => void
}

/**
 * While a machine serves the release on its disk, puts aside what a newer one has beyond it, and offers that to others at
 * once, so that each block comes from afar as seldom as can be. The disk is not written: `mesh restore` switches.
 */
export class Stager {
  readonly #options: StagerOptions
  readonly #stop = new AbortController()
  /** Aborted when there is a newer release than the one that is looked after. */
  #turn = new AbortController()
  #release: number | undefined
  #staging: Staging | undefined
  #failure: Pick<StagingStatus, 'release' | 'reason'> | undefined
  #running: Promise<void> = Promise.resolve()
  #stopTrust: (() => void) | undefined
  #poll: NodeJS.Timeout | undefined
  #inUse = false

  constructor(options: StagerOptions) {
    this.#options = options
  }

  start(): void {
    const { machine, node } = this.#options
    this.#stopTrust = machine.trust.onChange(() => {
      if (this.#newest?.release !== this.#release) this.#turn.abort()
    })
    this.#poll = setInterval(() => void node.askForNews(), NEWS_POLL_MS)
    this.#running = this.#run()
  }

  async stop(): Promise<void> {
    clearInterval(this.#poll)
    this.#stopTrust?.()
    this.#stop.abort()
    await this.#running
  }

  /** Somebody uses the machine, or no longer. */
  setInUse(inUse: boolean): void {
    this.#inUse = inUse
  }

  /** Undefined if nothing newer than what is on the disk is known. */
  status(): StagingStatus | undefined {
    if (this.#staging !== undefined) return this.#staging.status()
    if (this.#failure === undefined) return undefined
    return { ...this.#failure, wanted: 0, staged: 0, left: 0, received: 0, state: 'waiting' }
  }

  get #newest(): VerifiedManifest | undefined {
    return this.#options.machine.trust.view().newest(this.#options.manifest.image)
  }

  async #run(): Promise<void> {
    const { manifest, config } = this.#options
    while (!this.#stop.signal.aborted) {
      this.#turn = new AbortController()
      const signal = AbortSignal.any([this.#stop.signal, this.#turn.signal])
      const newest = this.#newest
      this.#release = newest?.release
      if (newest === undefined || newest.release <= manifest.release || config.stageSpace === 0) {
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
        continue
      }
      await this.#stage(newest, signal)
      await pause(STAGE_RETRY_MS, signal)
    }
  }

  async #stage(manifest: VerifiedManifest, signal: AbortSignal): Promise<void> {
    await using stack = new AsyncDisposableStack()
    const { config } = this.#options
    const space = config.stageSpace ?? STAGE_SPACE_BYTES
    try {
      this.#failure = { release: manifest.release, reason: 'its hash tree is being fetched' }
      const options = { ...this.#options, manifest, space, rate: () => this.#rate, signal }
      this.#staging = await Staging.begin(options, stack)
      this.#failure = undefined
      await this.#staging.run()
    } catch (error) {
      if (!isMeshError(error)) throw error
      this.#failure = { release: manifest.release, reason: error.message }
    } finally {
      this.#staging = undefined
    }
  }

  /** Bytes per second; undefined for as fast as can be. */
  get #rate(): number | undefined {
    const { stageRate } = this.#options.config
    if (!this.#inUse) return stageRate
    return stageRate === undefined ? STAGE_IN_USE_RATE : stageRate * STAGE_IN_USE_SHARE
  }
}
