import { createHash } from 'node:crypto'
import { existsSync, lstatSync, realpathSync } from 'node:fs'
import { mkdir, rmdir } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { systemLimit } from '../disk/system-limit.ts'
import { storageError } from './atomic-file.ts'
import { MAX_SOCKET_PATH_BYTES } from './limits.ts'

/**
 * Folder for sockets of this user that no other user can put something in place of: `/run` for root, else `/run/user/1000`
 * (systemd makes it at the login), else `/tmp`, whose sticky bit guards a folder that is there.
 */
export function runFolder(): string {
  const user = process.geteuid?.() ?? 0
  if (user === 0 && existsSync('/run')) return '/run'
  return existsSync(`/run/user/${user}`) ? `/run/user/${user}` : '/tmp'
}

/**
 * Where the socket `name` of a directory may be: in the directory, or in a folder below {@link runFolder} that is named after it. The
 * second place is for a directory whose path is too long for a socket address, or whose file system keeps no sockets (FAT, exFAT,
 * some network file systems) or is read-only. Whoever calls tries one after the other.
 */
export function socketPlaces(directory: string, name: string): string[] {
  const own = join(resolve(directory), name)
  const elsewhere = join(elsewhereOf(directory), name)
  return Buffer.byteLength(own) <= MAX_SOCKET_PATH_BYTES ? [own, elsewhere] : [elsewhere]
}

/** A socket that somebody listens on; `release` is called when it is closed. */
interface PlacedSocket<T> {
  readonly listening: T
  readonly release: () => Promise<void>
}

/**
 * Listens at the first of the {@link socketPlaces} that can be had. `listen` binds the path that it is given. Errors: STATE_UNWRITABLE if
 * none can, SYSTEM_LIMIT, and what `listen` throws of another kind.
 */
export async function listenInPlace<T>(
  directory: string,
  name: string,
  listen: (path: string) => Promise<T>,
): Promise<PlacedSocket<T>> {
  const places = socketPlaces(directory, name)
  const elsewhere = places.at(-1)!
  if (places.length > 1) {
    try {
      return { listening: await listen(places[0]!), release: async () => undefined }
    } catch (error) {
      const errno = errnoOf(error)
      const isOther = errno === undefined || errno === 'EADDRINUSE' || systemLimit(error) !== undefined
      if (isOther) throw storageError(error, places[0]!)
    }
  }
  const folder = dirname(elsewhere)
  const release = (): Promise<void> => rmdir(folder).catch(() => undefined)
  try {
    await mkdir(folder, { mode: 0o700 }).catch((error: unknown) => {
      if (errnoOf(error) !== 'EEXIST') throw error
      if (!isOwn(folder))
        throw new MeshError('STATE_UNWRITABLE', `${folder} belongs to another user, or others may change it`)
    })
    return { listening: await listen(elsewhere), release }
  } catch (error) {
    await release()
    throw storageError(error, elsewhere)
  }
}

/** Whether a folder is there, and nobody else can change what is in it. */
export function isOwn(folder: string): boolean {
  const facts = lstatSync(folder, { throwIfNoEntry: false })
  return facts?.isDirectory() === true && facts.uid === process.geteuid?.() && (facts.mode & 0o077) === 0
}

function elsewhereOf(directory: string): string {
  let real = resolve(directory)
  try {
    real = realpathSync(real)
  } catch {
    // It is missing, and so is the socket.
  }
  return join(runFolder(), `lab-mesh-${createHash('sha256').update(real).digest('hex').slice(0, 16)}`)
}
