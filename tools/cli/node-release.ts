import { MeshError } from '../../protocol/errors.ts'
import { errorJson, errorLines } from './error-lines.ts'

/** The oldest Node that runs `mesh`, as `engines` of package.json says it. */
export const OLDEST_NODE = '24.15'

/**
 * Says so, and sets the exit code, if this Node is older than {@link OLDEST_NODE}. `version` is such as `20.20.2`. Node 18 and
 * 20 must be able to run this file and what it imports. Returns whether Node is too old. Says: NODE_TOO_OLD.
 */
export function refuseOldNode(version: string, args: readonly string[]): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [oldestMajor = 0, oldestMinor = 0] = OLDEST_NODE.split('.').map(Number)
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return false
  const error = new MeshError('NODE_TOO_OLD', `this is Node ${version}, and mesh needs Node ${OLDEST_NODE} or newer`)
  process.stderr.write(errorLines(error))
  if (args.includes('--json')) process.stdout.write(errorJson(error))
  process.exitCode = error.exitCode
  return true
}
