import { cp, mkdir, open, readdir, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { MAX_METADATA_FILE_BYTES, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { sameBytes, toHex } from '../../../protocol/digest.ts'
import { checkDocument } from '../../../protocol/document.ts'
import { errnoOf, isMeshError, MeshError } from '../../../protocol/errors.ts'
import { anyText, list, literal, natural, object, text, truth } from '../../../protocol/json-shape.ts'
import { callControl } from '../../control/control-client.ts'
import { storageError, writeFileAtomic } from '../../state/atomic-file.ts'
import { TrustStore } from '../../trust/trust-store.ts'
import { MEMBERS_ROLE, targetDigest, targetsOf } from '../../trust/trusted-view.ts'
import { MAX_PATH_BYTES } from '../machine/limits.ts'
import { Machine } from '../machine/machine.ts'
import type { ServicePart } from '../machine/service-part.ts'
import { askWork, isServer } from '../machine/work.ts'
import { MAX_IMAGES_TOLD } from './limits.ts'

/** Result of `mesh site export`. */
interface Exported {
  readonly event: 'site-exported'
  readonly directory: string
  readonly dryRun: boolean
  readonly site: string
  readonly siteId: string
  readonly versions: { readonly root: number; readonly timestamp: number }
  readonly files: number
}

/**
 * Writes the signed metadata that this machine trusts into a folder, under their names on the wire (docs/PROTOCOL.md). They are public
 * to all members, and prove themselves. An older export there is brought up to date. Errors: USAGE if the folder is of another site, DISK_FULL,
 * STATE_UNWRITABLE, and those of {@link Machine.look}.
 */
export async function exportMetadata(stateDir: string, folder: string, dryRun: boolean): Promise<Exported> {
  const { trust, config } = await Machine.look(stateDir)
  const directory = resolve(folder)
  const first = await readFrom(directory)('1.root.json')
  const own = await trust.file('1.root.json')
  if (first !== undefined && own !== undefined && !sameBytes(own, first))
    throw new MeshError('USAGE', `${directory} holds the metadata of another site`)
  const roles = await trust.roles()
  const versioned = (['snapshot', 'targets', MEMBERS_ROLE] as const).map(
    (role) => `${roles[role].signed.version}.${role}.json`,
  )
  for (const [role, { signed }] of roles.delegated) versioned.push(`${signed.version}.${role}.json`)
  const roots = Array.from({ length: roles.root.signed.version }, (_, at) => `${at + 1}.root.json`)
  const targets = targetsOf(roles).map((target) => `targets/${targetDigest(target)}`)
  // The newest is named last, so that an export that was cut short is an older one, or none.
  const names = [...roots, ...targets, ...versioned, 'timestamp.json']
  if (!dryRun) {
    await mkdir(join(directory, 'targets'), { recursive: true }).catch((error: unknown) => {
      throw storageError(error, directory)
    })
    for (const name of names) await writeFileAtomic(join(directory, name), await fileOf(trust, name))
    await removeOthers(directory, names)
  }
  const { versions } = trust.view()
  return {
    event: 'site-exported',
    directory,
    dryRun,
    site: config.site,
    siteId: toHex(trust.siteId),
    versions,
    files: names.length,
  }
}

/** Errors: STATE_BUSY. */
async function fileOf(trust: TrustStore, name: string): Promise<Uint8Array> {
  const bytes = await trust.file(name)
  if (bytes === undefined) throw new MeshError('STATE_BUSY', 'the metadata have changed meanwhile')
  return bytes
}

/** Removes what an older export has left. Nothing else in the folder is touched. */
async function removeOthers(directory: string, names: readonly string[]): Promise<void> {
  const versioned = (await readdir(directory)).filter((name) =>
    /^\d+\.(snapshot|targets|members|images-[a-z0-9-]+)\.json$/.test(name),
  )
  const digests = (await readdir(join(directory, 'targets'))).filter((name) => /^[0-9a-f]{64}$/.test(name))
  const found = [...versioned, ...digests.map((digest) => `targets/${digest}`)]
  for (const name of found) if (!names.includes(name)) await rm(join(directory, name))
}

const isImported = object({
  event: literal('site-imported'),
  directory: anyText(MAX_PATH_BYTES),
  dryRun: truth,
  /** Whether anything was newer. */
  changed: truth,
  versions: object({ root: natural(), timestamp: natural() }),
  members: natural(),
  releases: list(object({ image: text(MAX_TEXT_BYTES), release: natural() }), MAX_IMAGES_TOLD),
})

type Of<C> = C extends (value: unknown) => value is infer T ? T : never
/** Result of `mesh site import`: what this machine trusts then. */
type Imported = Of<typeof isImported>

const IMPORT = {
  name: 'the request',
  fault: 'USAGE',
  shape: object({ directory: anyText(MAX_PATH_BYTES), dryRun: truth }),
} as const

/**
 * Takes the metadata of a folder that {@link exportMetadata} wrote, checked as those of a peer; by the command that runs here, if one
 * does. Errors: USAGE if there is no export, METADATA_EXPIRED, METADATA_ROLLBACK, METADATA_FORKED, METADATA_INVALID, CLOCK_WRONG, STATE_BUSY.
 */
export async function importMetadata(
  stateDir: string,
  folder: string,
  options: { dryRun: boolean; command: string | undefined },
): Promise<Imported> {
  const params = { directory: resolve(folder), dryRun: options.dryRun }
  const work = await askWork(stateDir)
  if (work !== undefined && isServer(work)) return callControl(stateDir, 'site-import', isImported, params)
  const machine = await Machine.open(stateDir, { command: options.command })
  try {
    return await takeFrom(machine, params)
  } finally {
    await machine.close()
  }
}

/** The control method `site-import`. */
export function siteMethods(machine: Machine): ServicePart {
  return { methods: { 'site-import': async (params) => takeFrom(machine, checkDocument(IMPORT, params)) } }
}

async function takeFrom(machine: Machine, { directory, dryRun }: Of<typeof IMPORT.shape>): Promise<Imported> {
  const read = readFrom(directory)
  if ((await read('timestamp.json')) === undefined)
    throw new MeshError('USAGE', `${directory} holds no metadata of \`mesh site export\``)
  const trust = dryRun ? await copyOf(machine) : machine.trust
  try {
    const changed = await trust.refresh(read).catch((error: unknown) => {
      if (!isMeshError(error)) throw error
      throw new MeshError(error.code, `${directory}: ${error.message}`, { cause: error })
    })
    const view = trust.view()
    const releases = view.images.map((image) => ({ image, release: view.newest(image)?.release ?? 0 }))
    const { versions, members } = view
    return { event: 'site-imported', directory, dryRun, changed, versions, members: members.length, releases }
  } finally {
    if (dryRun) await rm(machine.state.path('trust.tried'), { recursive: true, force: true })
  }
}

/** The trusted metadata once more, to try what becomes of them. */
async function copyOf({ state, config }: Machine): Promise<TrustStore> {
  const directory = state.path('trust.tried')
  await rm(directory, { recursive: true, force: true })
  await cp(state.path('trust'), directory, { recursive: true })
  return TrustStore.open(directory, { signs: config.role === 'master' })
}

/** Reads files of a folder by their names on the wire; undefined if there is none. */
function readFrom(directory: string): (name: string) => Promise<Buffer | undefined> {
  return async (name) => {
    const path = join(directory, name)
    try {
      await using file = await open(path, 'r')
      if ((await file.stat()).size > MAX_METADATA_FILE_BYTES)
        throw new MeshError('METADATA_INVALID', `${path} is too long`)
      return await file.readFile()
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined
      throw storageError(error, path)
    }
  }
}
