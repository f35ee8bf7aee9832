import { stat } from 'node:fs/promises'
import { short } from '../disk/disk-mark.ts'
import { fileMark } from '../disk/read-disk.ts'
import { LOG_TIMES_SLACK_NS } from './limits.ts'

/** The file that a log is kept in, before it is opened for writing. */
export interface LogPlace {
  /** What tells it from its copies. */
  readonly mark: string
  /** Whether something else has changed it since it was written last: writing sets both of a file's times, all else one of them. */
  readonly changed: boolean
}

/**
 * What the file is that a log is kept in: one that came back from a backup is another one, or was changed later than it was written.
 * Undefined for a device, or where the file system tells nothing of the kind.
 */
export async function placeOf(path: string): Promise<LogPlace | undefined> {
  const facts = await stat(path, { bigint: true }).catch(() => undefined)
  if (facts === undefined || !facts.isFile()) return undefined
  const mark = await fileMark(path)
  if (mark === undefined) return undefined
  return { mark: short(mark, 12), changed: facts.ctimeNs - facts.mtimeNs > LOG_TIMES_SLACK_NS }
}

/** Why a log that was kept in the file with the mark `kept` is not the newest; `kept` is '' for storage that is no file. */
export function placeDoubt(kept: string, now: LogPlace | undefined): string | undefined {
  if (kept === '' || now === undefined) return undefined
  if (kept !== now.mark) return 'the log is a copy: its file is not the one that it was kept in'
  return now.changed ? 'the log’s file was changed by another program after it was written last' : undefined
}
