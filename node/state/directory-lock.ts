import { mkdir } from 'node:fs/promises'
import { Level } from 'level'
import { MeshError } from '../../protocol/errors.ts'
import { storageError } from './atomic-file.ts'

/**
 * Takes the lock of a directory. The kernel gives the lock back when the process ends, however it ends. `what` is named
 * in the error. Calling the result gives the lock back. Errors: STATE_IN_USE, DISK_FULL, STATE_UNWRITABLE.
 */
export async function lockDirectory(directory: string, what: string): Promise<() => Promise<void>> {
  // Node has no file locks; LevelDB holds one on its directory.
  const database = new Level(directory)
  try {
    await mkdir(directory, { recursive: true })
    await database.open()
  } catch (error) {
    for (let at: unknown = error; at instanceof Error; at = at.cause) {
      if ('code' in at && at.code === 'LEVEL_LOCKED') throw new MeshError('STATE_IN_USE', `${what} is in use`)
    }
    throw storageError(error, directory)
  }
  return () => database.close()
}
