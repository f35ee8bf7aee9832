import { join } from 'node:path'

/** The directory whose lock the writer of this machine's log holds. */
export function logLockPath(stateDir: string): string {
  return join(stateDir, 'write-log', 'lock')
}

/** The file in it that LevelDB holds open. Only programs of this machine's log have it open: a monitor, a restore. */
export function logLockFile(stateDir: string): string {
  return join(logLockPath(stateDir), 'LOCK')
}
