/**
 * The room `offer`: what this machine gives to others from its disk, and how much of itself that may take.
 * `OfferedDisk` opens what is offered (open-source) and takes back what changes: log-watch goes by the write log, disk-watch by reading
 * the disk again. `OfferedDisks` adds the other-images that the master has. serving-limits bounds what serving takes, and bounds it more while use-watch sees somebody at the machine.
 * linger keeps a restore serving until the others are done.
 */

import type { HashPool } from '../../disk/hash-pool.ts'
import { readLogConfig } from '../log/log-config.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { DiskWatch, diskStamp } from './disk-watch.ts'
import { LogWatch } from './log-watch.ts'
import { type HeldRelease, type Offer, openSource } from './open-source.ts'

/** What an {@link OfferedDisk} works with. */
export interface OfferedDiskOptions {
  readonly machine: Machine
  readonly node: Pick<MeshNode, 'hold'>
  /** Hashes the disk when it has to be scanned. */
  readonly pool: HashPool
  readonly report: (event: AgentEvent) => void
  readonly signal: AbortSignal
}

/** The disk that a running command offers to others. Nothing is offered until `open` has found out what the disk holds. */
export class OfferedDisk {
  readonly #options: OfferedDiskOptions

  constructor(options: OfferedDiskOptions) {
    this.#options = options
  }

  /**
   * Offers the disk until the stack ends, and watches it meanwhile. Returns undefined if the hash tree is not here yet.
   * Errors: those of the disk, TREE_CORRUPT, INTERRUPTED while the disk is scanned.
   */
  async open(offer: Offer, stack: AsyncDisposableStack): Promise<HeldRelease | undefined> {
    const { machine, node, report } = this.#options
    const since = machine.config.role === 'master' ? await diskStamp(offer.path) : undefined
    const source = await openSource({ ...this.#options, offer }, stack)
    if (source === undefined) return undefined
    const { manifest } = offer
    const held = { manifest, source }
    // What the write log calls dirty is taken off the offer before anybody hears of it.
    if (offer.path === machine.config.disk) await this.#watchLog(held, stack)
    if (since !== undefined) this.#watchDisk({ path: offer.path, since }, held, stack)
    node.hold(source)
    report({ type: 'serving', image: manifest.image, release: manifest.release, blocks: source.heldCount })
    return held
  }

  async #watchLog({ manifest, source }: HeldRelease, stack: AsyncDisposableStack): Promise<void> {
    const { machine, report } = this.#options
    const config = await readLogConfig(machine.state.directory)
    if (config === undefined) return
    const log = new LogWatch({ config, state: machine.state, manifest, disk: source.disk, source, report })
    await log.start()
    stack.adopt(log, (it) => it.stop())
  }

  /** The master's disk has no log, and whoever works on it should know that the change has to be published. */
  #watchDisk(
    { path, since }: { readonly path: string; readonly since: string },
    { manifest, source }: HeldRelease,
    stack: AsyncDisposableStack,
  ): void {
    const { pool, report } = this.#options
    const disk = new DiskWatch({
      path,
      since,
      source,
      preserve: manifest.preserve,
      pool,
      changed: (blocks) => {
        const text = `${path} was changed after it was published: ${blocks} blocks of ${manifest.image} are no longer on it; run \`mesh seed\` again to publish the change`
        report({ type: 'warning', text })
      },
      shrunk: () => {
        const text = `${path} has become shorter than the ${manifest.size} bytes of ${manifest.image}: nothing of it is offered any more; put its content back, or run \`mesh seed\` again to publish what it holds now`
        report({ type: 'warning', text })
      },
    })
    disk.start()
    stack.adopt(disk, (it) => it.stop())
  }
}
