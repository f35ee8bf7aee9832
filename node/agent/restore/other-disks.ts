import { type Digest, digestOf, sameBytes } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { openDevice } from '../../disk/file-device.ts'
import { ImageDisk } from '../../disk/image-disk.ts'
import type { StagedContent } from '../../restore/block-provider.ts'
import { MAX_LOCATIONS_PER_DIGEST } from '../../store/limits.ts'
import { LocationIndex } from '../../store/location-index.ts'
import type { TreeFile } from '../../store/tree-file.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { AgentEvent } from '../machine/events.ts'
import { Machine } from '../machine/machine.ts'

interface OtherDisk {
  readonly disk: ImageDisk
  readonly tree: TreeFile
  /** Made when content is first looked for. */
  index: Promise<LocationIndex> | undefined
}

/**
 * Content on the other managed disks of this computer, each of which has a state directory of its own. Where it stands is
 * known from the newest hash tree there; what really stands there is hashed. Nothing there is changed or locked.
 */
export class OtherDisks implements StagedContent {
  readonly #disks: readonly OtherDisk[]

  private constructor(disks: readonly OtherDisk[]) {
    this.#disks = disks
  }

  /** One that cannot be used is reported and left out. Open until the stack ends. */
  static async open(
    stateDirs: readonly string[],
    blockSize: number,
    report: (event: AgentEvent) => void,
    stack: AsyncDisposableStack,
  ): Promise<OtherDisks> {
    const disks: OtherDisk[] = []
    for (const directory of stateDirs) {
      try {
        const disk = await openOther(directory, blockSize, stack)
        if (disk !== undefined) disks.push(disk)
      } catch (error) {
        if (!isMeshError(error)) throw error
        report({ type: 'warning', text: `the disk of ${directory} is not used: ${error.message}` })
      }
    }
    return new OtherDisks(disks)
  }

  async read(digest: Digest): Promise<Uint8Array | undefined> {
    for (const other of this.#disks) {
      const found = await readFrom(other, digest).catch(absent)
      if (found !== undefined) return found
    }
    return undefined
  }
}

/** Undefined if there is no tree of its image yet, or one with other blocks. */
async function openOther(
  stateDir: string,
  blockSize: number,
  stack: AsyncDisposableStack,
): Promise<OtherDisk | undefined> {
  const machine = await Machine.look(stateDir)
  const trees = new TreeStore(machine.home.path('trees'))
  const releases = machine.trust.view().releases(machine.manifest().image)
  const device = stack.adopt(await openDevice(machine.diskPath, { writable: false }), (it) => it.close())
  for (const manifest of releases.toReversed()) {
    if (manifest.blockSize !== blockSize || manifest.size > device.size || !(await trees.has(manifest))) continue
    const tree = stack.adopt(await trees.open(manifest), (it) => it.close())
    return { disk: new ImageDisk(device, manifest), tree, index: undefined }
  }
  return undefined
}

async function readFrom(other: OtherDisk, digest: Digest): Promise<Uint8Array | undefined> {
  other.index ??= LocationIndex.build(other.tree)
  let tries = 0
  for await (const place of (await other.index).find(digest)) {
    if (tries++ === MAX_LOCATIONS_PER_DIGEST) break
    const data = await other.disk.readBlock(place)
    if (sameBytes(digestOf(data), digest)) return data
  }
  return undefined
}

/** A disk that fails, or a damaged tree, has nothing; its own restore reports it. */
function absent(error: unknown): undefined {
  if (isMeshError(error)) return undefined
  throw error
}
