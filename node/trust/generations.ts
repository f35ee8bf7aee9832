import { cp, mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { fsyncDirectory, storageError, writeDurable, writeFileAtomic } from '../state/atomic-file.ts'

const CURRENT = 'CURRENT'

/** Path of the generation in force; undefined if there is none yet. Errors: STATE_CORRUPT. */
export async function currentGeneration(trustDir: string): Promise<string | undefined> {
  const path = join(trustDir, CURRENT)
  const name = await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw storageError(error, path)
  })
  if (name === undefined) return undefined
  if (!/^gen-\d{6,15}$/.test(name)) throw new MeshError('STATE_CORRUPT', `${path} is damaged`, { detail: { path } })
  return join(trustDir, name)
}

/**
 * Makes the next generation of the trusted metadata. `fill` gets a directory with a copy of the current generation,
 * changes it, and returns what it then holds, or undefined to drop it. The switch is atomic: everything is made durable
 * first, then `CURRENT` is replaced (docs/DURABILITY.md). The generation before stays until {@link
 * removeOtherGenerations}. Only the holder of the state directory's lock may call this. Errors: those of `fill`,
 * DISK_FULL, STATE_UNWRITABLE, DISK_IO.
 */
export async function nextGeneration<T>(
  trustDir: string,
  fill: (scratch: string) => Promise<T | undefined>,
): Promise<{ readonly path: string; readonly content: T } | undefined> {
  const current = await currentGeneration(trustDir)
  const number = current === undefined ? 1 : Number(current.slice(current.lastIndexOf('-') + 1)) + 1
  const name = `gen-${String(number).padStart(6, '0')}`
  const path = join(trustDir, name)
  try {
    await mkdir(trustDir, { recursive: true, mode: 0o700 })
    // Generations that a crash left are not in force.
    await removeOtherGenerations(trustDir, current)
    if (current === undefined) await mkdir(join(path, 'targets'), { recursive: true })
    else await cp(current, path, { recursive: true })
    const content = await fill(path)
    if (content === undefined) {
      await rm(path, { recursive: true, force: true })
      return undefined
    }
    await makeDurable(path)
    await fsyncDirectory(trustDir)
    await writeFileAtomic(join(trustDir, CURRENT), name)
    return { path, content }
  } catch (error) {
    // Replacing CURRENT can fail after its rename, at the flush. Then CURRENT names this generation, which must stay.
    if ((await currentGeneration(trustDir).catch(() => path)) !== path) {
      await rm(path, { recursive: true, force: true }).catch(() => undefined)
    }
    throw storageError(error, path)
  }
}

/** Removes every generation but `keep`, unfinished ones included; all of them if `keep` is undefined. */
export async function removeOtherGenerations(trustDir: string, keep: string | undefined): Promise<void> {
  for (const name of await readdir(trustDir)) {
    const path = join(trustDir, name)
    if (name.startsWith('gen-') && path !== keep) await rm(path, { recursive: true, force: true })
  }
}

/** Flushes every file and directory of a generation; the files are small and few. */
async function makeDurable(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name)
    if (entry.isDirectory()) await makeDurable(path)
    else await writeDurable(path, await readFile(path))
  }
  await fsyncDirectory(directory)
}
