import { chmod, lstat, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'

const OTHERS = 0o077
const WRITABLE_BY_OTHERS = 0o022
const OF_ALL_USERS = 0o007

/** Files and folders of a state directory that hold private keys. */
const KEPT_SECRET = ['identity.pem', 'keys'] as const

/**
 * Makes sure that only this user and root can look into a state directory or change it: modes of the directory and of its private keys
 * are mended. Returns what was open to whom, in sentences. What others may have put there cannot be mended. Errors: STATE_UNSAFE if the directory, the
 * link to it or a private key belongs to another user; or anything in it, if others could write there.
 */
export async function guardDirectory(directory: string): Promise<string[]> {
  if (process.geteuid === undefined) return []
  assertOwn(directory, await lstat(directory))
  const facts = await stat(directory)
  assertOwn(directory, facts)
  const wasWritable = (facts.mode & WRITABLE_BY_OTHERS) !== 0
  const could = wasWritable ? 'read its keys and change what this machine trusts' : 'look into it'
  const told = await mend(directory, facts.mode, could)
  if (wasWritable) for (const path of await readdir(directory, { recursive: true })) await lookAt(join(directory, path))
  const keys = await readdir(join(directory, 'keys')).catch(() => [])
  for (const name of [...KEPT_SECRET, ...keys.map((key) => join('keys', key))]) {
    const path = join(directory, name)
    const facts = await lookAt(path)
    if (facts !== undefined && !facts.isSymbolicLink())
      told.push(...(await mend(path, facts.mode, 'read private keys')))
  }
  return told
}

/** What is at a path; undefined if it is gone. Errors: STATE_UNSAFE. */
async function lookAt(path: string): Promise<Awaited<ReturnType<typeof lstat>> | undefined> {
  const facts = await lstat(path).catch(() => undefined)
  if (facts !== undefined) assertOwn(path, facts)
  return facts
}

function assertOwn(path: string, { uid }: { readonly uid: number | bigint }): void {
  if (uid === 0 || uid === process.geteuid?.()) return
  throw new MeshError(
    'STATE_UNSAFE',
    `${path} belongs to the user with number ${uid}, who can change what this machine trusts`,
    {
      detail: { path },
    },
  )
}

/** Takes from a file or folder what others may do, and says what that was. */
async function mend(path: string, mode: number | bigint, could: string): Promise<string[]> {
  const open = Number(mode) & OTHERS
  if (open === 0) return []
  const whom = (open & OF_ALL_USERS) === 0 ? 'its group' : 'every user of this machine'
  const was = `${path} was open to ${whom} (mode ${octal(Number(mode))}), who could ${could}`
  const fault = await chmod(path, Number(mode) & 0o7700).catch((error: unknown) => errnoOf(error) ?? String(error))
  const now = Number((await stat(path)).mode)
  if ((now & OTHERS) === 0) return [`${was}; its mode is ${octal(now)} now`]
  return [
    `${was}, and its mode cannot be changed${fault === undefined ? '' : ` (${fault})`}: its file system keeps no modes, or is read-only`,
  ]
}

function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, '0')
}
