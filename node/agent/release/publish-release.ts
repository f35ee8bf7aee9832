import { basename, resolve } from 'node:path'
import { DEFAULT_BLOCK_SIZE_BYTES } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { isImageName } from '../../../protocol/manifest.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { byteCount } from '../../../protocol/units.ts'
import { openDevice } from '../../disk/file-device.ts'
import { HashPool } from '../../disk/hash-pool.ts'
import { assertNotMounted } from '../../disk/mounts.ts'
import type { ReportProgress } from '../../disk/progress.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import { buildTree, copyDisk, preservedBlocks, sameContent } from '../../store/build-tree.ts'
import { TreeStore } from '../../store/tree-store.ts'
import { loadOrCreateMachineKey } from '../../trust/machine-key.ts'
import { isPlaceName } from '../../trust/members.ts'
import { createSite, SiteSigner } from '../../trust/site-signer.ts'
import { TrustStore } from '../../trust/trust-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { writeDiskState } from '../machine/disk-state.ts'
import type { Published } from '../machine/events.ts'
import { macAddresses } from '../machine/mac-addresses.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { listenToRemember } from '../machine/settings.ts'

export interface SeedOptions extends AgentOptions {
  readonly disk: string
  /** Default: the machine's image, else the file name of the disk. */
  readonly image?: string
  /** Default: that of the newest release, else 64 KiB. */
  readonly blockSize?: number
  /** Bytes that are never hashed, served or restored; default: those of the newest release. */
  readonly preserve: readonly { offset: number; length: number }[]
  /** Serve from an own copy in the state directory. */
  readonly copy: boolean
  /** Publish and return, instead of serving on. */
  readonly once: boolean
  /** Publish a disk although it is mounted read-write. */
  readonly force: boolean
  readonly label?: string
  /** Name of the site, when it is created. @default 'lab' */
  readonly site?: string
  /** Name of this machine, when the site is created. @default 'master' */
  readonly name?: string
}

const CLOCK_TOLERANCE_MS = 24 * 3600 * 1000

export async function checkDisk(options: SeedOptions): Promise<number> {
  const device = await openDevice(options.disk, { writable: false })
  await device.close()
  await assertNotMounted(options.disk, options)
  return device.size
}

/** Opens the master's state, creating the site if there is none. Errors: STATE_NOT_MASTER on a machine that joined. */
export async function openMaster(options: SeedOptions): Promise<Machine> {
  const state = await StateDirectory.open(options.stateDir, { create: true })
  try {
    if (state.machine !== undefined && state.machine.role !== 'master') {
      throw new MeshError(
        'STATE_NOT_MASTER',
        `${state.machine.name} joined site ${state.machine.site} as a${state.machine.role === 'operator' ? 'n operator’s' : ' lab'} machine`,
      )
    }
    if (state.machine === undefined) await createMaster(state, options)
    return await Machine.from(state)
  } catch (error) {
    await state.close()
    throw error
  }
}

async function createMaster(state: StateDirectory, options: SeedOptions): Promise<void> {
  const [site, name] = [options.site ?? 'lab', options.name ?? 'master']
  if (!isPlaceName(site)) throw new MeshError('USAGE', `${JSON.stringify(site)} is no name of a site`)
  const { id } = await loadOrCreateMachineKey(state.path('identity.pem'))
  const trustDir = state.path('trust')
  const mac = await macAddresses()
  const master = { id, name, role: 'master', site, group: site, mac, added: new Date().toISOString() } as const
  await createSite({ keysDir: state.path('keys'), trustDir, master })
  const { siteId } = await TrustStore.open(trustDir)
  await state.saveMachine({
    site,
    siteId: toHex(siteId),
    name,
    id,
    role: 'master',
    listen: listenToRemember(options) ?? [],
  })
  options.report({
    type: 'note',
    text: `created site ${site}; keep a copy of ${state.directory} in a safe place: without it nobody can publish again`,
  })
}

export interface PublishedRelease {
  readonly published: Published
  readonly manifest: VerifiedManifest
  /** Where the content is served from. */
  readonly path: string
}

export async function publish(machine: Machine, options: SeedOptions, size: number): Promise<PublishedRelease> {
  const startedAt = Date.now()
  const { state, trust } = machine
  const image = options.image ?? machine.config.image ?? imageNameOf(options.disk)
  const before = trust.view().newest(image)
  if (before !== undefined && Date.parse(before.time) > startedAt + CLOCK_TOLERANCE_MS) {
    throw new MeshError(
      'CLOCK_WRONG',
      `release ${before.release} is of ${before.time}, but the clock says ${new Date(startedAt).toISOString()}`,
    )
  }
  const blockSize = options.blockSize ?? before?.blockSize ?? DEFAULT_BLOCK_SIZE_BYTES
  const preserve = preserveOf(options, before, size, blockSize)
  const trees = new TreeStore(await state.subdirectory('trees'))
  const path = await servedPath(machine, options, image)
  const progress: ReportProgress = (at) => options.report({ type: 'progress', ...at })
  const pool = new HashPool({ here: true })
  const tree = await buildTree({
    path,
    size,
    blockSize,
    preserve,
    pool,
    trees,
    progress,
    signal: options.signal,
  }).finally(() => pool.close())
  const unchanged = before !== undefined && sameContent(before, tree, preserve)
  if (!unchanged) {
    const signer = await SiteSigner.open({ keysDir: state.path('keys'), trust })
    await signer.publish({
      image,
      release: (before?.release ?? 0) + 1,
      size: byteCount(size),
      blockSize: byteCount(blockSize),
      root: tree.root,
      preserve,
      ...(tree.repeats === undefined ? {} : { repeats: tree.repeats }),
      label: options.label ?? '',
      time: new Date().toISOString(),
    })
  }
  const manifest = machine.manifest(image)
  const disk = resolve(options.disk)
  const listen = listenToRemember(options) ?? machine.config.listen
  await state.saveMachine({ ...machine.config, image, disk, listen })
  const root = toHex(manifest.root)
  const { release } = manifest
  await writeDiskState(state, { state: 'whole', image, release, root, ...(path === disk ? {} : { servedFrom: path }) })
  await trees.collect(trust.view().images.flatMap((name) => trust.view().releases(name)))
  const seconds = (Date.now() - startedAt) / 1000
  return {
    published: { event: 'published', image, release, root, size, blockSize, seconds, unchanged },
    manifest,
    path,
  }
}

/** Path of the disk, or of the fresh copy that is to be served instead. */
async function servedPath(machine: Machine, options: SeedOptions, image: string): Promise<string> {
  const disk = resolve(options.disk)
  if (!options.copy) return disk
  const directory = await machine.state.subdirectory('copies')
  const copy = machine.state.path('copies', `${image.replaceAll('/', '+')}.img`)
  options.report({ type: 'note', text: `copying ${disk} to ${copy}` })
  await copyDisk(disk, copy, directory)
  return copy
}

function preserveOf(
  options: SeedOptions,
  before: VerifiedManifest | undefined,
  size: number,
  blockSize: number,
): RangeSet {
  if (options.preserve.length > 0) return preservedBlocks(options.preserve, size, blockSize)
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
