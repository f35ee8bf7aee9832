import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { BLKID_DEADLINE_MS } from './limits.ts'

const execute = promisify(execFile)

/**
 * What `blkid -p` of util-linux calls a part of a disk, such as `zfs_member`; undefined if it does not know, is not installed, or
 * does not end in time. Nobody depends on it.
 */
export async function blkidType(
  path: string,
  { offset, size }: { readonly offset: number; readonly size: number },
): Promise<string | undefined> {
  const args = ['-p', '-O', String(offset), '-S', String(size), '-o', 'value', '-s', 'TYPE', '--', path]
  const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin` }
  const said = await execute('blkid', args, { env, timeout: BLKID_DEADLINE_MS }).then(
    ({ stdout }) => stdout,
    () => '',
  )
  const name = said.split('\n')[0]!.trim()
  return /^[\w.+-]{1,40}$/.test(name) ? name : undefined
}
