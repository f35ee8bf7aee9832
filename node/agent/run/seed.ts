import { DEFAULT_BLOCK_SIZE_BYTES } from '../../../protocol/constants.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { isBlockSize, isImageName } from '../../../protocol/manifest.ts'
import { preservedBlocks } from '../../store/build-tree.ts'
import { EARLIEST_CLOCK_MS } from '../../trust/trust-store.ts'
import type { Published } from '../machine/events.ts'
import { rememberServing } from '../machine/settings.ts'
import { checkDisk, openMaster, publish, type SeedOptions } from '../release/publish-release.ts'
import { serve } from './serve.ts'

/**
 * `mesh seed`: publishes the content of a disk as the next release (creating the site at the first time), then serves it
 * until the signal aborts. Unchanged content makes no release.
 */
export async function seed(options: SeedOptions): Promise<Published> {
  const size = await checkDisk(options)
  const blockSize = options.blockSize
  if (blockSize !== undefined && !isBlockSize(blockSize)) {
    throw new MeshError('BLOCK_SIZE_INVALID', `${blockSize} cannot be a block size`)
  }
  const image = options.image
  if (image !== undefined && !isImageName(image)) {
    throw new MeshError('USAGE', `${image} is no image name: use small letters, digits, dots, dashes and slashes`)
  }
  if (Date.now() < EARLIEST_CLOCK_MS) {
    throw new MeshError('CLOCK_WRONG', `the clock of this machine says ${new Date().toISOString()}`)
  }
  // What was asked for is looked at before a site is made for it.
  preservedBlocks(options.preserve, size, blockSize ?? DEFAULT_BLOCK_SIZE_BYTES)
  const machine = await openMaster(options)
  try {
    const { published, manifest, path } = await publish(machine, options, size)
    options.report({ type: 'published', published })
    await rememberServing(machine, options)
    if (!options.once) await serve(machine, { manifest, path, whole: true }, { ...options, command: 'seed' })
    return published
  } finally {
    await machine.close()
  }
}
