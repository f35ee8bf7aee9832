import { cp, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { runFolder } from './socket-place.ts'

/** A database that lies beside the one that it was copied from. */
interface DatabaseCopy {
  readonly path: string
  /** Deletes it. */
  readonly remove: () => Promise<void>
}

/**
 * Copies the files of a database to a folder of this user in `/run`: LevelDB opens no database without writing to its folder
 * (https://github.com/google/leveldb/blob/main/doc/impl.md). The database must not be in use.
 */
export async function copyDatabase(database: string): Promise<DatabaseCopy> {
  const folder = await mkdtemp(join(runFolder(), 'lab-mesh-db-'))
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true })
  try {
    const path = join(folder, 'db')
    await cp(database, path, { recursive: true })
    return { path, remove }
  } catch (error) {
    await remove()
    throw error
  }
}
