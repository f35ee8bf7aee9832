import type { StateDirectory } from '../../state/state-directory.ts'

/** Something that the write log does not know of was found. Until a restore has scanned the disk the log is not believed. */
interface LogDoubt {
  readonly reason: string
  /** ISO 8601. */
  readonly at: string
}

const SHELF = 'log-doubt'
const KEY = 'disk'

/** Durable when it resolves. */
export async function recordLogDoubt(state: StateDirectory, reason: string): Promise<void> {
  await state.putDurable<LogDoubt>(SHELF, KEY, { reason, at: new Date().toISOString() })
}

/** Why the log is not to be believed, if so. */
export async function readLogDoubt(state: StateDirectory): Promise<string | undefined> {
  const doubt = await state.sublevel<LogDoubt>(SHELF).get(KEY)
  return doubt === undefined ? undefined : `${doubt.reason} (${doubt.at})`
}

/** The disk was scanned and put right. Forgotten at the latest some time after; another scan would do no harm. */
export async function forgetLogDoubt(state: StateDirectory): Promise<void> {
  await state.sublevel<LogDoubt>(SHELF).del(KEY)
}
