import { constants } from 'node:fs'
import { access, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { MAX_HOOKS } from './limits.ts'
import { assertTrustedPath } from './trusted-path.ts'

/** Names that run-parts(8) takes: without dots, so that files which editors and packages leave behind are not run. */
const HOOK_NAME = /^[A-Za-z0-9_-]+$/

interface FoundHooks {
  /** Paths, in the order of their names (by code units). */
  readonly hooks: readonly string[]
  /** The other files, and why they are not run. */
  readonly skipped: readonly { readonly name: string; readonly why: string }[]
}

/** The executables of a directory. Errors: HOOK_UNSAFE, HOOK_FAILED if it cannot be read or holds too many. */
export async function findHooks(directory: string): Promise<FoundHooks> {
  await assertTrustedPath(directory)
  const names = (
    await readdir(directory).catch((cause: unknown) => {
      throw new MeshError('HOOK_FAILED', `${directory} cannot be read (${errnoOf(cause) ?? String(cause)})`, { cause })
    })
  ).sort()
  const hooks: string[] = []
  const skipped: { name: string; why: string }[] = []
  for (const name of names) {
    const path = join(directory, name)
    const why = await whyNot(path, name)
    if (why === undefined) hooks.push(path)
    else skipped.push({ name, why })
  }
  if (hooks.length > MAX_HOOKS)
    throw new MeshError('HOOK_FAILED', `${directory} holds ${hooks.length} hooks, at most ${MAX_HOOKS} are run`)
  for (const path of hooks) await assertTrustedPath(path)
  return { hooks, skipped }
}

async function whyNot(path: string, name: string): Promise<string | undefined> {
  if (!HOOK_NAME.test(name)) return 'names of hooks are of letters, digits, _ and -'
  const facts = await stat(path).catch(() => undefined)
  if (facts?.isFile() !== true) return 'it is no file'
  // A file without any execute bit is no program.
  if ((facts.mode & 0o111) === 0) return 'it is not executable'
  return access(path, constants.X_OK).then(
    () => undefined,
    () => 'it is not executable',
  )
}
