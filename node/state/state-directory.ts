/**
 * The folder node/state is what a machine remembers from one boot to the next, in one directory.
 * - `state-directory` opens the directory, holds it for one process (`directory-lock`), and has a database for small values.
 * - `guard-directory` sees to it that only the owner can look into it.
 * - `machine-config` is what the machine was told to be; `shelf` is a named part of the database; `stored-document` reads a
 *   file of the directory.
 * - `socket-place` is where a socket of the directory is, which not every file system can hold.
 * - `atomic-file` replaces files so that a crash leaves the old one or the new one; `make-path` makes directories.
 */

import { access, constants, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Level } from 'level'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { assertFormat, type DocumentShape } from '../../protocol/document.ts'
import { errnoOf, isMeshError, MeshError } from '../../protocol/errors.ts'
import { natural, object, text as textOf } from '../../protocol/json-shape.ts'
import { storageError, writeFileAtomic } from './atomic-file.ts'
import { copyDatabase } from './database-copy.ts'
import { guardDirectory } from './guard-directory.ts'
import { isMachineConfig, type MachineConfig } from './machine-config.ts'
import { makePath } from './make-path.ts'
import { Shelf } from './shelf.ts'
import { readStored } from './stored-document.ts'
import { ownValues, type StoredValues } from './stored-values.ts'

const FORMAT_NAME = 'lab-mesh-state'
const FORMAT_VERSION = 1

/**
 * Everything that a machine remembers, outside the managed disk: `format`, `machine.json`, `identity.pem`, `trust/`,
 * `keys/` (master only), `trees/`, `copies/`, `db/` (LevelDB: receipts, addresses, invitations), `control.sock`,
 * `holder.json`. One process at a time holds the directory, by the lock of LevelDB.
 */
export class StateDirectory {
  readonly directory: string
  readonly #database: Level<string, string> | undefined
  readonly #copy: CopiedDatabase | undefined
  readonly #values: StoredValues | undefined
  /** What of this directory was open to other users until now, in sentences. */
  readonly wasOpen: readonly string[]
  #machine: MachineConfig | undefined
  #onRefused: (text: string) => void = () => undefined
  /** Shelves of which something was refused. */
  readonly #told = new Set<string>()

  private constructor(
    directory: string,
    database: Level<string, string> | undefined,
    values: StoredValues | undefined,
    machine: MachineConfig | undefined,
    wasOpen: readonly string[],
    copy?: CopiedDatabase,
  ) {
    this.wasOpen = wasOpen
    this.directory = directory
    this.#database = database
    this.#values = values
    this.#copy = copy
    this.#machine = machine
  }

  /**
   * Opens a state directory. `create` makes one of a missing or empty directory. `readOnly` takes no lock and opens no
   * database; shelves can then be read if `values` says how. `orCopy`: where nothing can be written (a file system that is read-only,
   * or full), a copy of the database is opened, and {@link unwritable} says so; nothing that is changed then is kept. The format is
   * checked before anything is changed, and so is whose the directory is; what was open to others is closed ({@link wasOpen}). Errors:
   * STATE_MISSING, STATE_UNSAFE, STATE_IN_USE (naming the holder), FORMAT_NEWER, STATE_CORRUPT, STATE_UNWRITABLE, DISK_FULL.
   */
  static async open(
    path: string,
    options: {
      readonly create: boolean
      readonly readOnly?: boolean
      readonly orCopy?: boolean | undefined
      readonly command?: string | undefined
      readonly values?: StoredValues
    },
  ): Promise<StateDirectory> {
    const directory = resolve(path)
    await checkFormat(directory, options.create)
    const machine = await readMachine(directory)
    if (options.readOnly === true) return new StateDirectory(directory, undefined, options.values, machine, [])
    const wasOpen = await guardDirectory(directory)
    const database = await openDatabase(directory, join(directory, 'db')).catch((fault: unknown) => fault)
    if (!(database instanceof Level)) {
      const copy = options.orCopy === true ? await openCopy(directory, database) : undefined
      if (copy === undefined) throw database
      return new StateDirectory(directory, copy.database, ownValues(copy.database), machine, wasOpen, copy)
    }
    try {
      const holder = { pid: process.pid, command: options.command ?? process.argv.slice(2, 3).join('') }
      // Only people read this file, so it is not flushed: that would cost time at every boot.
      await writeFile(join(directory, 'holder.json'), JSON.stringify(holder))
    } catch (error) {
      const fault = storageError(error, directory)
      if (!isMeshError(fault, 'DISK_FULL')) {
        await database.close()
        throw fault
      }
    }
    return new StateDirectory(directory, database, ownValues(database), machine, wasOpen)
  }

  path(...parts: string[]): string {
    return join(this.directory, ...parts)
  }

  /** Why nothing can be kept in this directory; undefined if it can. */
  get unwritable(): MeshError | undefined {
    return this.#copy?.fault
  }

  get machine(): MachineConfig | undefined {
    return this.#machine
  }

  async saveMachine(machine: MachineConfig): Promise<void> {
    if (this.#copy === undefined)
      await writeFileAtomic(this.path('machine.json'), `${JSON.stringify(machine, undefined, 2)}\n`)
    this.#machine = machine
  }

  /** What the shelves hold. */
  get values(): StoredValues {
    if (this.#values === undefined) throw new Error('the state directory was opened read-only')
    return this.#values
  }

  /** Whether this process holds the directory. */
  get isHeld(): boolean {
    return this.#database !== undefined
  }

  /** A named part of the database, with documents of one kind. */
  shelf<T>(name: string, document: DocumentShape<T>): Shelf<T> {
    return new Shelf(this.values, this.#database, name, document, (error) => this.#failed(error))
  }

  /** As {@link shelf}, of documents that only save work: one that cannot be read is done without, and told to {@link onRefused}. */
  hints<T>(name: string, document: DocumentShape<T>): Shelf<T> {
    return new Shelf(
      this.values,
      this.#database,
      name,
      document,
      (error) => this.#failed(error),
      ({ message }) => {
        if (!this.#told.has(name)) this.#onRefused(`${message}; mesh goes on without it`)
        this.#told.add(name)
      },
    )
  }

  /** Who is told what could not be read and is done without, once for each shelf, in a sentence. */
  onRefused(listener: (text: string) => void): void {
    this.#onRefused = listener
  }

  #failed(error: unknown): unknown {
    return storageError(systemError(error, causesOf(error).text), this.path('db'))
  }

  /** Directory `name` below this one, made if it is missing. */
  async subdirectory(name: string, mode = 0o755): Promise<string> {
    const path = this.path(name)
    await makePath(path, mode).catch((error: unknown) => {
      throw storageError(error, path)
    })
    return path
  }

  async close(): Promise<void> {
    // After the database is closed another process may hold the directory, and may have said so in holder.json.
    if (this.#database?.status !== 'open') return
    if (this.#copy !== undefined) {
      await this.#database.close()
      return this.#copy.remove()
    }
    await rm(this.path('holder.json'), { force: true })
    await this.#database.close()
  }
}

async function checkFormat(directory: string, create: boolean): Promise<void> {
  const file = join(directory, 'format')
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    const code = errnoOf(error)
    if (code === 'ENOENT') return undefined
    if (code === 'ENOTDIR') throw new MeshError('STATE_UNWRITABLE', `${directory} is not a directory`)
    throw storageError(error, file)
  })
  if (text === undefined) {
    if (!create) throw new MeshError('STATE_MISSING', `${directory} is no state directory of a joined machine`)
    await makeDirectory(directory)
    await refuseForeign(directory)
    return writeFileAtomic(file, `${FORMAT_NAME} ${FORMAT_VERSION}\n`)
  }
  const [name, version] = text.trim().split(' ')
  if (name !== FORMAT_NAME || !/^\d+$/.test(version ?? '')) {
    throw new MeshError('STATE_CORRUPT', `${file} does not name a state format`)
  }
  assertFormat(`the state directory ${directory}`, Number(version), FORMAT_VERSION)
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    await makePath(directory, 0o700)
    if (!(await stat(directory)).isDirectory())
      throw new MeshError('STATE_UNWRITABLE', `${directory} is not a directory`)
    await access(directory, constants.W_OK)
  } catch (error) {
    if (errnoOf(error) === 'ENOTDIR' || errnoOf(error) === 'EEXIST' || errnoOf(error) === 'ENOENT') {
      throw new MeshError('STATE_UNWRITABLE', `${directory} cannot be made a directory`, { cause: error })
    }
    throw storageError(error, directory)
  }
}

/**
 * Names that may be in a directory before it becomes a state directory: from a mounted file system, or from a first
 * start that was cut short.
 */
const NOT_FOREIGN = ['lost+found', 'format.new']

/**
 * Refuses a directory that has no format file and holds anything: it is somebody else's, or a damaged state directory.
 */
async function refuseForeign(directory: string): Promise<void> {
  const foreign = (await readdir(directory)).find((name) => !NOT_FOREIGN.includes(name))
  if (foreign === undefined) return
  throw new MeshError('STATE_CORRUPT', `${directory} is no state directory, but holds ${foreign}`, {
    detail: { path: directory },
  })
}

async function readMachine(directory: string): Promise<MachineConfig | undefined> {
  const file = join(directory, 'machine.json')
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw storageError(error, file)
  })
  return text === undefined ? undefined : readStored(file, isMachineConfig, text)
}

/** A copy of the database that is open, and why it was made. */
interface CopiedDatabase {
  readonly database: Level<string, string>
  readonly fault: MeshError
  readonly remove: () => Promise<void>
}

/** Undefined if the fault is another one, or if there is no room for a copy either. */
async function openCopy(directory: string, fault: unknown): Promise<CopiedDatabase | undefined> {
  const isFull = isMeshError(fault, 'DISK_FULL')
  if (!isFull && !(isMeshError(fault, 'STATE_UNWRITABLE') && errnoOf(fault) === 'EROFS')) return undefined
  const copy = await copyDatabase(join(directory, 'db')).catch(() => undefined)
  if (copy === undefined) return undefined
  try {
    return { database: await openDatabase(directory, copy.path), fault, remove: copy.remove }
  } catch {
    await copy.remove()
    return undefined
  }
}

async function openDatabase(directory: string, path: string): Promise<Level<string, string>> {
  const database = new Level<string, string>(path, { valueEncoding: 'utf8' })
  try {
    await database.open()
    return database
  } catch (error) {
    const { codes, text } = causesOf(error)
    if (codes.includes('LEVEL_LOCKED')) {
      throw new MeshError('STATE_IN_USE', `${directory} is in use by ${await describeHolder(directory)}`, {
        detail: { path: directory },
      })
    }
    const known = storageError(systemError(error, text), path)
    if (isMeshError(known)) throw known
    throw new MeshError('STATE_CORRUPT', `the database ${path} cannot be opened: ${text}`, {
      detail: { path },
      cause: error,
    })
  }
}

/** LevelDB passes errors of the system on as text only. */
const ERRNO_TEXTS = [
  ['No space left on device', 'ENOSPC'],
  ['Disk quota exceeded', 'EDQUOT'],
  ['Permission denied', 'EACCES'],
  ['Read-only file system', 'EROFS'],
  ['Input/output error', 'EIO'],
  ['No locks available', 'ENOLCK'],
] as const

function systemError(error: unknown, text: string): unknown {
  const errno = ERRNO_TEXTS.find(([words]) => text.includes(words))?.[1]
  return errno === undefined ? error : Object.assign(new Error(text), { code: errno })
}

const isHolder = object({ pid: natural(), command: textOf(MAX_TEXT_BYTES) })

/**
 * Describes the process that wrote `holder.json`, if it still runs. After a crash another process may hold the lock
 * already.
 */
async function describeHolder(directory: string): Promise<string> {
  try {
    const text = await readFile(join(directory, 'holder.json'), 'utf8')
    const { pid, command } = readStored('holder.json', isHolder, text)
    // On Linux this folder is there exactly as long as the process runs.
    await access(`/proc/${pid}`)
    return `mesh ${command} (pid ${pid})`
  } catch {
    return 'another mesh process'
  }
}

function causesOf(error: unknown): { codes: string[]; text: string } {
  const codes: string[] = []
  const texts: string[] = []
  for (let at = error; at instanceof Error; at = at.cause) {
    if ('code' in at) codes.push(String(at.code))
    texts.push(at.message)
  }
  return { codes, text: texts.join('; ') }
}
