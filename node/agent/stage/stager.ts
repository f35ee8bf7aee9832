/**
 * The room `stage`: a release that is newer than the one on the disk, fetched ahead while the machine is used.
 * `Stager` watches for such a release. Staging fetches one and offers it; stage-plan says which of its blocks have to be put aside,
 * because the disk does not have them or would lose them. The disk itself is not written: `mesh restore` switches.
 */

import { isMeshError } from '../../../protocol/errors.ts'
import type { ServingConfig } from '../../state/machine-config.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import { STAGE_SPACE_BYTES } from '../../store/limits.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { aborted } from '../machine/aborted.ts'
import type { AgentEvent, StagingStatus } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { pause } from '../machine/pause.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { NEWS_POLL_MS, STAGE_IN_USE_RATE, STAGE_IN_USE_SHARE, STAGE_RETRY_MS } from './limits.ts'
import { PreImageKeeper } from './pre-image-keeper.ts'
import { Staging } from './staging.ts'

/** The release on the disk, and the disk as it is offered. */
interface OnDisk {
  readonly manifest: VerifiedManifest
  readonly source: DiskSource
}

/** What a {@link Stager} works with. */
interface StagerOptions {
  readonly machine: Machine
  readonly node: MeshNode
  /** Whether somebody uses the machine at this moment. */
  readonly inUse: () => boolean
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

  constructor(options: StagerOptions) {
    this.#options = options
  }

  /** Looks for newer releases than the one on the disk, and stages the newest, until `stop`. */
  start(onDisk: OnDisk): void {
    const { machine, node } = this.#options
    const { image } = onDisk.manifest
    this.#stopTrust = machine.trust.onChange(() => {
      if (machine.trust.view().newest(image)?.release !== this.#release) this.#turn.abort()
    })
    this.#poll = setInterval(() => void node.askForNews(), NEWS_POLL_MS)
    this.#running = this.#run(onDisk)
  }

  /** Ends what is being staged; what is in the stage stays. */
  async stop(): Promise<void> {
    clearInterval(this.#poll)
    this.#stopTrust?.()
    this.#stop.abort()
    await this.#running
  }

  /** Undefined if nothing newer than what is on the disk is known. */
  status(): StagingStatus | undefined {
    if (this.#staging !== undefined) return this.#staging.status()
    if (this.#failure === undefined) return undefined
    return { ...this.#failure, wanted: 0, staged: 0, left: 0, received: 0, state: 'waiting' }
  }

  async #run({ manifest, source }: OnDisk): Promise<void> {
    const { machine, config } = this.#options
    while (!this.#stop.signal.aborted) {
      this.#turn = new AbortController()
      const signal = AbortSignal.any([this.#stop.signal, this.#turn.signal])
      const newest = machine.trust.view().newest(manifest.image)
      this.#release = newest?.release
      if (newest === undefined || newest.release <= manifest.release || config.stageSpace === 0) {
        await this.#keepPreImages({ manifest, source }, signal)
        await aborted(signal)
        continue
      }
      await this.#stage(newest, { manifest, source }, signal)
      await pause(STAGE_RETRY_MS, signal)
    }
  }

  /** With no newer release the room is for what sessions dirtied before. */
  async #keepPreImages({ manifest, source }: OnDisk, signal: AbortSignal): Promise<void> {
    const { machine, inUse, report } = this.#options
    if (this.#space === 0) return
    try {
      const directory = machine.state.path('stage')
      await new PreImageKeeper({ directory, manifest, source, space: this.#space, inUse, signal }).run()
    } catch (error) {
      if (!isMeshError(error)) throw error
      report({ type: 'warning', text: `nothing more is kept for the next restore: ${error.message}` })
    }
  }

  async #stage(manifest: VerifiedManifest, onDisk: OnDisk, signal: AbortSignal): Promise<void> {
    await using stack = new AsyncDisposableStack()
    const { machine, node, report } = this.#options
    const { source } = onDisk
    const space = this.#space
    try {
      this.#failure = { release: manifest.release, reason: 'its hash tree is being fetched' }
      const rate = (): number | undefined => this.#rate
      const options = { machine, node, source, onDisk: onDisk.manifest, manifest, space, rate, report, signal }
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

  get #space(): number {
    return this.#options.config.stageSpace ?? STAGE_SPACE_BYTES
  }

  /** Bytes per second; undefined for as fast as can be. */
  get #rate(): number | undefined {
    const { stageRate } = this.#options.config
    if (!this.#options.inUse()) return stageRate
    return stageRate === undefined ? STAGE_IN_USE_RATE : stageRate * STAGE_IN_USE_SHARE
  }
}
