import { isMeshError } from '../../protocol/errors.ts'

/** The code of the MeshError that `run` fails with; `OK` if it does not fail; any other error is passed on. */
export async function codeOf(run: Promise<unknown> | (() => unknown)): Promise<string> {
  try {
    await (typeof run === 'function' ? run() : run)
    return 'OK'
  } catch (error) {
    if (!isMeshError(error)) throw error
    return error.code
  }
}
