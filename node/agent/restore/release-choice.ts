import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { readDiskState } from '../machine/disk-state.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { ReleaseSuperseded, ReleaseUnavailable, type RestoreNetwork } from './restore-network.ts'

/** What a {@link ReleaseChoice} works with. */
interface ReleaseChoiceParts {
  readonly machine: Machine
  readonly trees: Pick<TreeStore, 'remove'>
  readonly network: Pick<RestoreNetwork, 'keepToOlder'>
  readonly report: (event: AgentEvent) => void
}

/**
 * The release that a restore brings the disk to. Normally that is the newest. When it cannot be had, the choice falls back to the
 * release that the disk holds; when a newer one is heard of before anything was fetched, to that.
 */
export class ReleaseChoice {
  readonly #parts: ReleaseChoiceParts
  #manifest: VerifiedManifest
  /** The release that the disk holds, whole, as long as the restore may turn to it. */
  #older: VerifiedManifest | undefined
  #treeRefetched = false

  private constructor(parts: ReleaseChoiceParts, manifest: VerifiedManifest, older: VerifiedManifest | undefined) {
    this.#parts = parts
    this.#manifest = manifest
    this.#older = older
  }

  /** `wanted`: the release that was asked for; nothing else is restored then. */
  static async make(wanted: VerifiedManifest, isAskedFor: boolean, parts: ReleaseChoiceParts): Promise<ReleaseChoice> {
    const older = isAskedFor ? undefined : await olderOnDisk(parts.machine, wanted)
    return new ReleaseChoice(parts, wanted, older)
  }

  /** The release to restore now. */
  get manifest(): VerifiedManifest {
    return this.#manifest
  }

  /** Whether the disk can stay at the release it holds. */
  get mayStay(): boolean {
    return this.#older !== undefined
  }

  /** Chooses what to restore after an attempt that failed. If another attempt would be no use, throws the error that came. */
  async afterFailure(error: unknown): Promise<void> {
    const { machine, trees, network, report } = this.#parts
    const { image, release } = this.#manifest
    if (error instanceof ReleaseSuperseded) {
      report({ type: 'note', text: `release ${release} is superseded; restoring the newest one` })
      this.#manifest = machine.manifest(image)
    } else if (isMeshError(error, 'TREE_CORRUPT') && !this.#treeRefetched) {
      report({ type: 'warning', text: `${error.message}; fetching the hash tree again` })
      this.#treeRefetched = true
      await trees.remove(this.#manifest)
    } else if (this.#older !== undefined && isOutOfReach(error) && (await isStillOn(machine, this.#older))) {
      const text = `release ${release} cannot be had now: ${error.message}; restoring release ${this.#older.release}, which is on the disk`
      report({ type: 'warning', text })
      network.keepToOlder()
      this.#manifest = this.#older
      this.#older = undefined
    } else throw error
  }
}

/** The release that the disk holds, whole, if that is another one than is wanted. */
async function olderOnDisk(machine: Machine, { image, root }: VerifiedManifest): Promise<VerifiedManifest | undefined> {
  const disk = await readDiskState(machine.state)
  if (disk?.state !== 'whole' || disk.image !== image || disk.root === toHex(root)) return undefined
  const known = machine.trust.view().release(image, disk.release)
  return known !== undefined && toHex(known.root) === disk.root ? known : undefined
}

/** Nothing has been written towards another release. */
async function isStillOn(machine: Machine, { root }: VerifiedManifest): Promise<boolean> {
  const disk = await readDiskState(machine.state)
  return disk?.state === 'whole' && disk.root === toHex(root)
}

function isOutOfReach(error: unknown): error is Error {
  return error instanceof ReleaseUnavailable || isMeshError(error, 'PEERS_UNREACHABLE', 'BLOCKS_UNAVAILABLE')
}
