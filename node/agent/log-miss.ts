import type { StateDirectory } from '../state/state-directory.ts'

/**
 * A block that was found changed while the write log called it clean. Kept until a restore has scanned the disk: until then
 * the log is not believed.
 */
interface LogMiss {
  readonly block: number
  /** ISO 8601. */
  readonly at: string
}

const SHELF = 'log-miss'
const KEY = 'disk'

/** Durable when it resolves. */
export async function recordLogMiss(state: StateDirectory, block: number): Promise<void> {
  await state.putDurable<LogMiss>(SHELF, KEY, { block, at: new Date().toISOString() })
}

/** Why the log is not to be believed, if so. */
export async function readLogMiss(state: StateDirectory): Promise<string | undefined> {
  const miss = await state.sublevel<LogMiss>(SHELF).get(KEY)
  return miss === undefined ? undefined : `block ${miss.block} changed without the log’s knowledge (seen ${miss.at})`
}

/** The disk was scanned and the log begun anew. Forgotten at the latest some time after; another scan would do no harm. */
export async function forgetLogMiss(state: StateDirectory): Promise<void> {
  await state.sublevel<LogMiss>(SHELF).del(KEY)
}
