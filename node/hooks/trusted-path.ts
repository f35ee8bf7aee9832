import { realpath, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'

const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000

/**
 * Makes sure that nobody but root and this user can change what is at `path`, or put something else there: neither the
 * path nor a folder above it is owned or writable by others (sshd asks the same of its files). A sticky folder such as
 * /tmp may stand above: everybody can change only his own files there. Errors: HOOK_UNSAFE, HOOK_FAILED if the path
 * does not exist.
 */
export async function assertTrustedPath(path: string): Promise<void> {
  const real = await realpath(path).catch((cause: unknown) => {
    throw new MeshError(
      'HOOK_FAILED',
      `${path}: no hook is run, it cannot be used (${errnoOf(cause) ?? String(cause)})`,
      { cause },
    )
  })
  for (let at = real; ; at = dirname(at)) {
    const { uid, mode } = await stat(at)
    if (uid !== 0 && uid !== process.geteuid?.()) throw unsafe(at, `belongs to the user with number ${uid}`)
    const sticky = at !== real && (mode & STICKY) !== 0
    if ((mode & WRITABLE_BY_OTHERS) !== 0 && !sticky)
      throw unsafe(at, `can be written by others (mode ${(mode & 0o7777).toString(8)})`)
    if (at === dirname(at)) return
  }
}

function unsafe(path: string, why: string): MeshError {
  return new MeshError('HOOK_UNSAFE', `${path} ${why}, so no hook is run`, { detail: { path } })
}
