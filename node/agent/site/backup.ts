import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { MAX_ADDRESSES_PER_PEER, MAX_MEMBERS, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { readDocument } from '../../../protocol/document.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { anyText, type Check, list, object, text, which } from '../../../protocol/json-shape.ts'
import { fsyncDirectory, writeDurable } from '../../state/atomic-file.ts'
import { isMachineConfig, type MachineConfig } from '../../state/machine-config.ts'
import { makePath } from '../../state/make-path.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import { currentGeneration } from '../../trust/generations.ts'
import { newTerm, writeTerm } from '../../trust/master-term.ts'
import { REMOVAL, type Removal } from '../../trust/removals.ts'
import { readSealed, type SealedAbout, sealFile } from '../../trust/sealed-file.ts'
import { SiteSigner } from '../../trust/site-signer.ts'
import { TrustStore } from '../../trust/trust-store.ts'
import { holdState } from '../machine/hold-state.ts'
import { Machine } from '../machine/machine.ts'
import { notMaster } from '../machine/require-master.ts'
import { addressesOf } from '../mesh/addresses.ts'
import { assertNew } from './assert-new.ts'
import { MAX_BACKUP_FILES, MAX_REMOVALS } from './limits.ts'

/** What a backup holds, inside of its seal. Invitations are left out: what was taken back would be valid again. */
interface BackupContent {
  readonly machine: MachineConfig
  /** Files of the state directory by their paths in it, in base64. */
  readonly files: readonly { readonly path: string; readonly bytes: string }[]
  /** Where members were found, by peer id. */
  readonly addresses: readonly (readonly [string, readonly string[]])[]
  readonly removed: readonly (readonly [string, Removal])[]
}

const isPair = <T>(check: Check<T>): Check<readonly [string, T]> => {
  const isKey = text(MAX_TEXT_BYTES)
  return (value): value is readonly [string, T] =>
    Array.isArray(value) && value.length === 2 && isKey(value[0]) && check(value[1])
}
/** Nothing but what a backup is made of: a path cannot leave the directory. */
const isBackupPath = (path: string): boolean =>
  /^(identity\.pem|keys\/[a-z0-9.-]+\.pem|trust\/CURRENT|trust\/gen-\d{6,15}\/([A-Za-z0-9.-]+\.json|targets\/[0-9a-f]{64}))$/.test(
    path,
  ) && !path.includes('..')

const CONTENT = {
  name: 'the backup',
  fault: 'SEALED_DAMAGED',
  shape: object({
    machine: isMachineConfig,
    files: list(object({ path: which(text(MAX_TEXT_BYTES), isBackupPath), bytes: anyText(2 ** 22) }), MAX_BACKUP_FILES),
    addresses: list(isPair(list(anyText(MAX_TEXT_BYTES), MAX_ADDRESSES_PER_PEER)), 2 * MAX_MEMBERS),
    removed: list(isPair(REMOVAL.shape), MAX_REMOVALS),
  }),
} as const

/** Result of `mesh site backup`. */
interface BackedUp {
  readonly event: 'backup'
  readonly file: string
  readonly dryRun: boolean
  readonly site: string
  readonly siteId: string
  /** The releases that it knows, newest of each image. */
  readonly releases: readonly { readonly image: string; readonly release: number }[]
  readonly members: number
}

/**
 * Writes all that makes this machine the master into one sealed file, whatever runs here, and reads that file back. `passphrase` is
 * asked for when it is needed. Errors: STATE_NOT_MASTER, USAGE if the file is there, PASSPHRASE_WEAK, DISK_FULL, and those of {@link Machine.read}.
 */
export async function backUpMaster(
  stateDir: string,
  { file, dryRun, passphrase }: { file: string; dryRun: boolean; passphrase: () => Promise<string> },
): Promise<BackedUp> {
  const machine = await Machine.read(stateDir)
  try {
    const { trust, config } = machine
    if (config.role !== 'master') throw notMaster(config)
    await assertNew(file)
    const content = Buffer.from(JSON.stringify(await contentOf(machine)))
    const [view, siteId] = [trust.view(), toHex(trust.siteId)]
    const releases = view.images.map((image) => ({ image, release: view.newest(image)?.release ?? 0 }))
    if (!dryRun) {
      const about: SealedAbout = {
        kind: 'lab-mesh-backup',
        site: config.site,
        siteId,
        made: new Date().toISOString(),
        holds: `the master ${config.name}`,
      }
      const secret = await passphrase()
      await sealFile(file, about, content, secret)
      const back = await (await readSealed(file, 'lab-mesh-backup')).open(secret)
      if (!back.equals(content)) throw new MeshError('SEALED_DAMAGED', `${file} could not be read back`)
    }
    return { event: 'backup', file, dryRun, site: config.site, siteId, releases, members: view.members.length }
  } finally {
    await machine.close()
  }
}

async function contentOf(machine: Machine): Promise<BackupContent> {
  const { state, config } = machine
  const files = await filesOf(state)
  const addresses: [string, readonly string[]][] = []
  for await (const entry of addressesOf(state).iterator()) addresses.push(entry)
  const removed: [string, Removal][] = []
  for await (const entry of state.shelf('removed', REMOVAL).iterator()) removed.push(entry)
  return { machine: config, files, addresses, removed }
}

/** The keys and the generation of the metadata in force, read again if it changes meanwhile. */
async function filesOf(state: StateDirectory): Promise<BackupContent['files']> {
  for (;;) {
    const before = await currentGeneration(state.path('trust'))
    const generation = before?.slice(state.directory.length + 1)
    const read = async (): Promise<string[]> => [
      'identity.pem',
      'trust/CURRENT',
      ...(await readdir(state.path('keys'))).filter((name) => name.endsWith('.pem')).map((name) => `keys/${name}`),
      ...(await readdir(state.path(generation ?? ''), { recursive: true }))
        .filter((name) => name !== 'targets')
        .map((name) => join(generation ?? '', name)),
    ]
    const names = await read()
    const files = await Promise.all(
      names.map(async (path) => ({ path, bytes: (await readFile(state.path(path))).toString('base64') })),
    ).catch((error: unknown) => error)
    if ((await currentGeneration(state.path('trust'))) !== before) continue
    if (!Array.isArray(files)) throw files
    return files
  }
}

/** Result of `mesh site restore`. */
interface BackRestored {
  readonly event: 'site-restored'
  readonly dryRun: boolean
  readonly site: string
  readonly siteId: string
  readonly name: string
  /** When the backup was made, ISO 8601. */
  readonly made: string
  readonly members: number
}

/**
 * Makes an empty state directory that of the master in a backup. The new master begins a term of its own, by which the old one notices that
 * it is master no longer. Errors: STATE_OTHER_SITE if the directory belongs to a machine, PASSPHRASE_WRONG, SEALED_DAMAGED, FORMAT_NEWER, DISK_FULL.
 */
export async function restoreMaster(
  stateDir: string,
  {
    file,
    dryRun,
    passphrase,
    command,
  }: { file: string; dryRun: boolean; passphrase: () => Promise<string>; command: string | undefined },
): Promise<BackRestored> {
  const sealed = await readSealed(file, 'lab-mesh-backup')
  await assertFree(stateDir)
  const content = readDocument(CONTENT, await sealed.open(await passphrase()))
  const { site, siteId, name } = content.machine
  const result = { event: 'site-restored', dryRun, site, siteId, name, made: sealed.about.made } as const
  if (dryRun) return { ...result, members: await membersIn(content, file) }
  const state = await holdState(stateDir, { create: true, command })
  try {
    // What a restore left that was cut short is not in force: machine.json comes last.
    for (const part of ['trust', 'keys']) await rm(state.path(part), { recursive: true, force: true })
    await putFiles(state.directory, content.files)
    await writeTerm(state.path('keys'), newTerm())
    const trust = await openTrust(state.directory, siteId, file)
    await SiteSigner.open({ keysDir: state.path('keys'), trust })
    for (const [id, addresses] of content.addresses) await addressesOf(state).put(id, addresses)
    await state.shelf('removed', REMOVAL).changeDurable(content.removed, [])
    await state.saveMachine(content.machine)
    return { ...result, members: trust.view().members.length }
  } finally {
    await state.close()
  }
}

/** How many members the metadata of a backup name. The metadata are proven in a folder for the moment, without the keys. */
async function membersIn({ machine, files }: BackupContent, file: string): Promise<number> {
  const work = await mkdtemp(join(tmpdir(), 'mesh-backup-'))
  try {
    const metadata = files.filter(({ path }) => path.startsWith('trust/'))
    await putFiles(work, metadata)
    return (await openTrust(work, machine.siteId, file)).view().members.length
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** Errors: SEALED_DAMAGED, those of {@link TrustStore.open}. */
async function openTrust(directory: string, siteId: string, file: string): Promise<TrustStore> {
  const trust = await TrustStore.open(join(directory, 'trust'))
  if (toHex(trust.siteId) !== siteId)
    throw new MeshError('SEALED_DAMAGED', `${file} holds the metadata of another site`)
  return trust
}

async function putFiles(directory: string, files: BackupContent['files']): Promise<void> {
  const folders = new Set<string>()
  for (const { path, bytes } of files) {
    const target = join(directory, path)
    const folder = dirname(target)
    await makePath(folder, 0o700)
    folders.add(folder)
    await writeDurable(target, Buffer.from(bytes, 'base64'), path.endsWith('.pem') ? 0o600 : 0o644)
  }
  for (const folder of [...folders, directory, join(directory, 'trust')]) await fsyncDirectory(folder)
}

/** Errors: STATE_OTHER_SITE. */
async function assertFree(stateDir: string): Promise<void> {
  const known = await StateDirectory.open(stateDir, { create: false, readOnly: true }).catch((error: unknown) => {
    if (isMeshError(error, 'STATE_MISSING')) return undefined
    throw error
  })
  if (known?.machine === undefined) return
  const { name, site } = known.machine
  throw new MeshError('STATE_OTHER_SITE', `${stateDir} belongs to ${name} of site ${site}`)
}
