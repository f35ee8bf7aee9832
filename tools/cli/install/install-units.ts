import { lstat, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makePath } from '../../../node/state/make-path.ts'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { UNIT_NAMES } from './mesh-units.ts'
import { MARKER, type UnitFile } from './unit-text.ts'

/** What was done with one unit, or would be done. */
export interface UnitChange {
  readonly path: string
  readonly change: 'written' | 'unchanged' | 'removed'
}

/**
 * Writes the units of `wanted` for the system at `root`, and removes our other units. Files that it did not write are
 * not touched. `dryRun` only tells. Errors: UNIT_FOREIGN before anything is changed, STATE_UNWRITABLE.
 */
export async function installUnits(
  root: string,
  wanted: readonly UnitFile[],
  options: { readonly dryRun: boolean },
): Promise<UnitChange[]> {
  const directory = join(root, 'etc/systemd/system')
  const found = new Map<string, string>()
  for (const name of UNIT_NAMES) {
    const text = await textOf(join(directory, name))
    if (text === undefined) continue
    if (text.startsWith(MARKER)) found.set(name, text)
    else if (wanted.some((one) => one.name === name))
      throw new MeshError('UNIT_FOREIGN', `${join(directory, name)} exists already`, { detail: { name } })
  }
  const changes: UnitChange[] = wanted.map(({ name, text }) => ({
    path: join(directory, name),
    change: found.get(name) === text ? 'unchanged' : 'written',
  }))
  const surplus = [...found.keys()].filter((name) => !wanted.some((one) => one.name === name))
  changes.push(...surplus.map((name) => ({ path: join(directory, name), change: 'removed' as const })))
  if (options.dryRun) return changes
  try {
    if (wanted.length > 0) await makePath(directory)
    for (const { name, text } of wanted) if (found.get(name) !== text) await replace(join(directory, name), text)
    for (const name of surplus) await removeUnit(directory, name)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    throw new MeshError('STATE_UNWRITABLE', `${directory} cannot be written (${errnoOf(error)})`, { cause: error })
  }
  return changes
}

/** The text of a unit. A link, as `systemctl mask` makes it, is not ours. */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return (await lstat(path)).isFile() ? await readFile(path, 'utf8') : ''
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined
    throw new MeshError('STATE_UNWRITABLE', `${path} cannot be read (${errnoOf(error)})`, { cause: error })
  }
}

async function replace(path: string, text: string): Promise<void> {
  const fresh = `${path}.new`
  await writeFile(fresh, text, { mode: 0o644 })
  await rename(fresh, path)
}

/** Removes a unit with the links by which it was enabled. */
async function removeUnit(directory: string, name: string): Promise<void> {
  for (const entry of await readdir(directory)) {
    if (/\.(wants|requires)$/.test(entry)) await rm(join(directory, entry, name), { force: true })
  }
  await rm(join(directory, name), { force: true })
}
