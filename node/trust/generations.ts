import { cp, mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { fsyncDirectory, storageError, writeDurable, writeFileAtomic } from '../state/atomic-file.ts'

const CURRENT = 'CURRENT'

/** Path of the generation in force, or undefined if there is none yet. Errors: STATE_CORRUPT. */
export async function currentGeneration(trustDir: string): Promise<string | undefined> {
  const name = await readFile(join(trustDir, CURRENT), 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw storageError(error, join(trustDir, CURRENT))
  })
  if (name === undefined) return undefined
  if (!/^gen-\d{6,}$/.test(name)) throw new MeshError('STATE_CORRUPT', `${join(trustDir, CURRENT)} is damaged`)
  return join(trustDir, name)
}

/**
 * Makes the next generation of the trusted metadata: `fill` gets a directory with a copy of the current one and changes
 * it; false drops it. The switch is atomic: everything is made durable first, then `CURRENT` is replaced
 * (docs/DURABILITY.md). Returns the path of the new generation, or undefined if it was dropped.
 */
export async function nextGeneration(
  trustDir: string,
  fill: (scratch: string) => Promise<boolean>,
): Promise<string | undefined> {
  const current = await currentGeneration(trustDir)
  const number = current === undefined ? 1 : Number(current.slice(current.lastIndexOf('-') + 1)) + 1
  const name = `gen-${String(number).padStart(6, '0')}`
  const scratch = join(trustDir, name)
  try {
    await mkdir(trustDir, { recursive: true, mode: 0o700 })
    // A leftover of this name was never in force: CURRENT never named it.
    await rm(scratch, { recursive: true, force: true })
    if (current === undefined) await mkdir(join(scratch, 'targets'), { recursive: true })
    else await cp(current, scratch, { recursive: true })
    if (!(await fill(scratch))) {
      await rm(scratch, { recursive: true, force: true })
      return undefined
    }
    await makeDurable(scratch)
    await fsyncDirectory(trustDir)
    await writeFileAtomic(join(trustDir, CURRENT), name)
  } catch (error) {
    // If only the last fsync failed, CURRENT names the new generation already: then it must stay.
    if ((await currentGeneration(trustDir)) !== scratch) await rm(scratch, { recursive: true, force: true })
    throw storageError(error, scratch)
  }
  await removeOthers(trustDir, name)
  return scratch
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

async function removeOthers(trustDir: string, keep: string): Promise<void> {
  for (const name of await readdir(trustDir)) {
    if (name.startsWith('gen-') && name !== keep) await rm(join(trustDir, name), { recursive: true, force: true })
  }
}
