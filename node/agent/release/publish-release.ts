/**
 * The room `release`: the releases of an image.
 * `publishRelease` makes the next one from a disk, as release-plan has planned it and release-content has read it; open-site opens
 * the site it belongs to, and creates it at the first time. weigh-release says what it changes, and what speaks against it
 * (publish-doubts, restore-doubt, clock-doubts). preview-release does all but the signing. rollback publishes an earlier one again; bring-trees fetches
 * the hash trees that it needs. releases lists them, with what each has changed.
 */

import { resolve } from 'node:path'
import { DEFAULT_BLOCK_SIZE_BYTES } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { isBlockSize, isImageName } from '../../../protocol/manifest.ts'
import { byteCount } from '../../../protocol/units.ts'
import { assertUnused } from '../../disk/disk-use.ts'
import { openDevice } from '../../disk/file-device.ts'
import type { KnownDisk } from '../../disk/known-disk.ts'
import { preservedBlocks, sameContent } from '../../store/build-tree.ts'
import { TreeStore } from '../../store/tree-store.ts'
import { lentKeys } from '../../trust/key-file.ts'
import { SiteSigner } from '../../trust/site-signer.ts'
import { EARLIEST_CLOCK_MS } from '../../trust/trust-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { chooseModel } from '../machine/choose-disk.ts'
import { readDiskState, writeDiskState } from '../machine/disk-state.ts'
import type { AgentEvent, Published } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { imageOf, publishedFrom, rememberPublished } from '../machine/published-images.ts'
import type { Said } from '../mesh/ask-members.ts'
import { copyPath, type ReleaseContent, readContent } from './release-content.ts'
import { rememberContent } from './release-memory.ts'
import { planRelease, type ReleasePlan, type ReleaseRequest } from './release-plan.ts'
import { lastReceiptNumber } from './restore-doubt.ts'
import { weighRelease } from './weigh-release.ts'

/** What {@link publishRelease} has published, or found to be published already. */
export interface PublishedRelease {
  readonly published: Published
  readonly manifest: VerifiedManifest
  /** Where the content is served from. */
  readonly path: string
}

/**
 * Checks a request before anything is created or changed. Returns the size of the disk in bytes.
 * Errors: BLOCK_SIZE_INVALID, RANGE_INVALID, CLOCK_WRONG, USAGE, DISK_MOUNTED, and those of the disk.
 */
export async function checkRequest({ disk, image, blockSize, preserve, force }: ReleaseRequest): Promise<number> {
  const device = await openDevice(disk, { writable: false })
  await device.close()
  await assertUnused(disk, { to: 'read', force })
  if (blockSize !== undefined && !isBlockSize(blockSize))
    throw new MeshError('BLOCK_SIZE_INVALID', `${blockSize} cannot be a block size`)
  if (image !== undefined && !isImageName(image))
    throw new MeshError('USAGE', `${image} is no image name: use small letters, digits, dots, dashes and slashes`)
  if (Date.now() < EARLIEST_CLOCK_MS)
    throw new MeshError('CLOCK_WRONG', `the clock of this machine says ${formatTime(Date.now())}`)
  preservedBlocks(preserve, device.size, blockSize ?? DEFAULT_BLOCK_SIZE_BYTES)
  return device.size
}

/** What {@link publishRelease} needs besides the request. */
interface PublishContext {
  /** Bytes of the disk, as {@link checkRequest} found them. */
  readonly size: number
  /** Multiaddrs to listen on, if they are to be remembered. */
  readonly listen: readonly string[] | undefined
  readonly said: Said
  readonly report: (event: AgentEvent) => void
  readonly signal: AbortSignal
  /** Throws if this image is not to be published now. */
  readonly mayPublish?: (image: string) => void
}

/**
 * Publishes the content of a disk as the next release of its image, and remembers that this machine has that release. Content
 * that the newest release has already makes no release. What the release changes is told before it is signed.
 * Errors: DISK_OTHER, PUBLISH_DOUBTFUL unless forced, RANGE_INVALID, DISK_CHANGED, INTERRUPTED, and those of the disk, the keys and
 * the state directory.
 */
export async function publishRelease(
  machine: Machine,
  request: ReleaseRequest,
  { size, listen, said, report, signal, mayPublish }: PublishContext,
): Promise<PublishedRelease> {
  const begun = performance.now()
  const keys = { keysDir: machine.state.path('keys'), trust: machine.trust, given: lentKeys(request.lent) }
  const fork = said.fork ?? (await (await SiteSigner.open(keys)).superseded())
  if (fork !== undefined && !request.force) throw fork
  // Another machine has signed with the keys of this one: a release is signed in any case, which goes before what that one signed.
  const over = fork !== undefined
  const disk = resolve(request.disk)
  const last = await publishedFrom(machine, disk)
  const diskIdentity = await chooseModel(last ?? machine.config, disk, request)
  const plan = planRelease(machine, { ...request, ...imageOf(request, last) }, size)
  const { image, before, blockSize } = plan
  mayPublish?.(image)
  const signer = await SiteSigner.open({ ...keys, over })
  await warnOfMissingKey(signer, image, report)
  const trees = new TreeStore(await machine.state.subdirectory('trees'))
  const copyTo = request.copy ? await copyPath(machine.state, image) : undefined
  const { force, label } = request
  const content = await readContent({ ...plan, disk, trees, copyTo, force, report, signal })
  const { found } = content
  const unchanged = !over && before !== undefined && sameContent(before, content.tree, plan.preserve)
  if (!unchanged) {
    try {
      await weighRelease({ machine, disk, plan, content, trees, clocks: said.clocks, force, report })
      await sign(signer, plan, content, label)
    } catch (error) {
      await content.drop()
      throw error
    }
  }
  const path = await content.keep()
  const manifest = machine.manifest(image)
  await rememberRelease(machine, manifest, { disk, diskIdentity, path, listen })
  await rememberContent(machine.state, manifest.root, { found, receipt: await lastReceiptNumber(machine) })
  const view = machine.trust.view()
  await trees.collect(view.images.flatMap((name) => view.releases(name)))
  const { release } = manifest
  const root = toHex(manifest.root)
  const seconds = (performance.now() - begun) / 1000
  const published = { event: 'published', image, release, root, size, blockSize, seconds, unchanged } as const
  return { published, manifest, path }
}

/** Hashing may take an hour, so that is told before. A disk that is unchanged needs no key. */
async function warnOfMissingKey(signer: SiteSigner, image: string, report: (event: AgentEvent) => void): Promise<void> {
  await signer.assertPublishes(image).catch((error: unknown) => {
    if (!isMeshError(error, 'SITE_KEY_MISSING')) throw error
    report({ type: 'warning', text: `a release cannot be signed here: ${error.message}` })
  })
}

/** An earlier version has remembered only what was published last. */
async function rememberLast({ state, config }: Machine): Promise<void> {
  const last = await readDiskState(state)
  if (last?.state !== 'whole' || config.disk === undefined || last.image !== config.image) return
  const { state: _, ...published } = last
  const diskIdentity = config.diskIdentity === undefined ? {} : { diskIdentity: config.diskIdentity }
  await rememberPublished(state, { ...published, disk: config.disk, ...diskIdentity })
}

/** From now on this machine is one that has the image on its disk, whole. `path`: where the content is served from. */
async function rememberRelease(
  machine: Machine,
  { image, release, root }: VerifiedManifest,
  {
    disk,
    diskIdentity,
    path,
    listen = machine.config.listen,
  }: { disk: string; diskIdentity: KnownDisk; path: string; listen: readonly string[] | undefined },
): Promise<void> {
  const { state, config } = machine
  const servedFrom = path === disk ? {} : { servedFrom: path }
  const published = { image, release, root: toHex(root), ...servedFrom }
  await rememberLast(machine)
  await rememberPublished(state, { ...published, disk, diskIdentity })
  await state.saveMachine({ ...config, image, disk, diskIdentity, listen })
  await writeDiskState(state, { state: 'whole', ...published })
}

/** Signs the next release. */
async function sign(
  signer: SiteSigner,
  { image, release, preserve }: ReleasePlan,
  { tree, found }: ReleaseContent,
  label = '',
): Promise<void> {
  const { root, repeats } = tree
  const sizes = { size: byteCount(tree.size), blockSize: byteCount(tree.blockSize) }
  // A table that is not of the image is that of each machine.
  const sectorSize = preserve.has(0) ? undefined : found.table?.sectorSize
  const optional = {
    ...(repeats === undefined ? {} : { repeats }),
    ...(sectorSize === undefined ? {} : { sectorSize }),
  }
  const time = new Date().toISOString()
  await signer.publish({ image, release, ...sizes, root, preserve, ...optional, label, time })
}
