/**
 * The room `release`: the releases of an image.
 * `publishRelease` makes the next one from a disk; open-site opens the site it belongs to, and creates it at the first time.
 * rollback publishes an earlier one again. releases lists them, with what each has changed.
 */

import { basename, resolve } from 'node:path'
import { DEFAULT_BLOCK_SIZE_BYTES } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { isBlockSize, isImageName } from '../../../protocol/manifest.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { byteCount } from '../../../protocol/units.ts'
import { openDevice } from '../../disk/file-device.ts'
import type { KnownDisk } from '../../disk/known-disk.ts'
import { assertNotMounted } from '../../disk/mounts.ts'
import { preservedBlocks, sameContent } from '../../store/build-tree.ts'
import { TreeStore } from '../../store/tree-store.ts'
import { SiteSigner } from '../../trust/site-signer.ts'
import { EARLIEST_CLOCK_MS } from '../../trust/trust-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { chooseModel } from '../machine/choose-disk.ts'
import { writeDiskState } from '../machine/disk-state.ts'
import type { AgentEvent, Published } from '../machine/events.ts'
import { CLOCK_TOLERANCE_MS } from '../machine/limits.ts'
import type { Machine } from '../machine/machine.ts'
import { copyPath, type ReleaseContent, readContent } from './release-content.ts'

/** What is to be published. */
export interface ReleaseRequest {
  /** Path of a block device or of an image file. */
  readonly disk: string
  /** Default: the machine's image, else the file name of the disk. */
  readonly image?: string
  /** Bytes. Default: that of the newest release, else 64 KiB. */
  readonly blockSize?: number
  /** Bytes that are never hashed, served or restored; default: those of the newest release. */
  readonly preserve: readonly { offset: number; length: number }[]
  /** Serve from an own copy in the state directory. */
  readonly copy: boolean
  /** Publish a disk although it is mounted read-write. */
  readonly force: boolean
  /** Publish the disk although another one was published from the same path before. */
  readonly acceptNewDisk?: boolean
  /** Remark for people. */
  readonly label?: string
}

/** What {@link publishRelease} has published, or found to be published already. */
interface PublishedRelease {
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
  await assertNotMounted(disk, { force })
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
  readonly report: (event: AgentEvent) => void
  readonly signal: AbortSignal
}

/**
 * Publishes the content of a disk as the next release of its image, and remembers that this machine has that release. Content
 * that the newest release has already makes no release.
 * Errors: DISK_OTHER, CLOCK_WRONG, RANGE_INVALID, DISK_CHANGED, INTERRUPTED, and those of the disk, the keys and the state directory.
 */
export async function publishRelease(
  machine: Machine,
  request: ReleaseRequest,
  { size, listen, report, signal }: PublishContext,
): Promise<PublishedRelease> {
  const begun = performance.now()
  const disk = resolve(request.disk)
  const diskIdentity = await chooseModel(machine.config, disk, request)
  const image = request.image ?? machine.config.image ?? imageNameOf(request.disk)
  const before = machine.trust.view().newest(image)
  assertLater(before, Date.now())
  const blockSize = request.blockSize ?? before?.blockSize ?? DEFAULT_BLOCK_SIZE_BYTES
  const preserve = preserveOf(request.preserve, before, size, blockSize)
  const trees = new TreeStore(await machine.state.subdirectory('trees'))
  const copyTo = request.copy ? await copyPath(machine.state, image) : undefined
  const plan = { disk, size, blockSize, preserve, trees, copyTo, force: request.force, report, signal }
  const content = await readContent(plan)
  const unchanged = before !== undefined && sameContent(before, content.tree, preserve)
  if (!unchanged) await sign(machine, { image, before, preserve, label: request.label ?? '' }, content)
  const path = await content.keep()
  const manifest = machine.manifest(image)
  await rememberRelease(machine, manifest, { disk, diskIdentity, path, listen })
  const view = machine.trust.view()
  await trees.collect(view.images.flatMap((name) => view.releases(name)))
  const { release } = manifest
  const root = toHex(manifest.root)
  const seconds = (performance.now() - begun) / 1000
  const published = { event: 'published', image, release, root, size, blockSize, seconds, unchanged } as const
  return { published, manifest, path }
}

/** Whoever publishes with a clock that is behind would sign a release that seems older than the one before. Errors: CLOCK_WRONG. */
function assertLater(before: VerifiedManifest | undefined, now: number): void {
  if (before === undefined || Date.parse(before.time) <= now + CLOCK_TOLERANCE_MS) return
  const clock = formatTime(now)
  throw new MeshError(
    'CLOCK_WRONG',
    `release ${before.release} is of ${formatTime(before.time)}, but the clock says ${clock}`,
  )
}

/** From now on this machine is one that has the image on its disk, whole. `path`: where the content is served from. */
async function rememberRelease(
  { state, config }: Machine,
  { image, release, root }: VerifiedManifest,
  {
    disk,
    diskIdentity,
    path,
    listen = config.listen,
  }: { disk: string; diskIdentity: KnownDisk; path: string; listen: readonly string[] | undefined },
): Promise<void> {
  await state.saveMachine({ ...config, image, disk, diskIdentity, listen })
  const servedFrom = path === disk ? {} : { servedFrom: path }
  await writeDiskState(state, { state: 'whole', image, release, root: toHex(root), ...servedFrom })
}

/** What {@link sign} signs beside the content. */
interface ReleaseFacts {
  readonly image: string
  /** The newest release. */
  readonly before: VerifiedManifest | undefined
  readonly preserve: RangeSet
  readonly label: string
}

/** Signs the next release. If that fails, nothing is left of a copy. */
async function sign(
  { state, trust }: Machine,
  { before, ...facts }: ReleaseFacts,
  { tree, found, drop }: ReleaseContent,
): Promise<void> {
  const { root, repeats } = tree
  const sizes = { size: byteCount(tree.size), blockSize: byteCount(tree.blockSize) }
  // A table that is not of the image is that of each machine.
  const sectorSize = facts.preserve.has(0) ? undefined : found.table?.sectorSize
  const optional = {
    ...(repeats === undefined ? {} : { repeats }),
    ...(sectorSize === undefined ? {} : { sectorSize }),
  }
  const contents = { ...sizes, root, ...optional }
  const release = (before?.release ?? 0) + 1
  try {
    const signer = await SiteSigner.open({ keysDir: state.path('keys'), trust })
    await signer.publish({ ...facts, ...contents, release, time: new Date().toISOString() })
  } catch (error) {
    await drop()
    throw error
  }
}

function preserveOf(
  wanted: ReleaseRequest['preserve'],
  before: VerifiedManifest | undefined,
  size: number,
  blockSize: number,
): RangeSet {
  if (wanted.length > 0) return preservedBlocks(wanted, size, blockSize)
  if (before === undefined || before.preserve.isEmpty) return RangeSet.empty
  if (before.blockSize !== blockSize || before.size !== size) {
    throw new MeshError(
      'RANGE_INVALID',
      'the disk or block size changed, so the preserved ranges have to be given again',
    )
  }
  return before.preserve
}

/** A valid image name from a file name: `Model Image.qcow2` → `model-image`. */
function imageNameOf(disk: string): string {
  const stem = basename(disk)
    .replace(/\.[^.]*$/, '')
    .toLowerCase()
  const name = stem
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/\.{2,}/g, '.')
    .replace(/^[^a-z0-9]+/, '')
    .slice(0, 64)
  return isImageName(name) ? name : 'image'
}
