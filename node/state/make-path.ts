import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errnoOf } from '../../protocol/errors.ts'

/**
 * Makes a directory and the directories above it, as far as they are missing; `mode`: of those that are made. `mkdir` of Node with
 * `recursive` tries for ever where a parent is there and nothing can be made in it, as in `/proc`, or below a mount point of autofs: the
 * kernel says ENOENT there. Errors: those of mkdir(2).
 */
export async function makePath(path: string, mode = 0o755): Promise<void> {
  const make = (): Promise<void> =>
    mkdir(path, { mode }).catch(async (error: unknown) => {
      const isThere = errnoOf(error) === 'EEXIST' && (await stat(path)).isDirectory()
      if (!isThere) throw error
    })
  try {
    await make()
  } catch (error) {
    const above = dirname(path)
    if (errnoOf(error) !== 'ENOENT' || above === path || (await isDirectory(above))) throw error
    await makePath(above, mode)
    await make()
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (facts) => facts.isDirectory(),
    () => false,
  )
}
