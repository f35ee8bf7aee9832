import { access } from 'node:fs/promises'
import { MeshError } from '../../../protocol/errors.ts'

/** Refuses a file that is there: it may be somebody's only copy of a key. Errors: USAGE. */
export async function assertNew(file: string): Promise<void> {
  const isThere = await access(file).then(
    () => true,
    () => false,
  )
  if (isThere) throw new MeshError('USAGE', `${file} is there already; give another name`)
}
