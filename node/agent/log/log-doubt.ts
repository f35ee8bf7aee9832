import { anyText, type Check, object, time } from '../../../protocol/json-shape.ts'
import type { Shelf } from '../../state/shelf.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'
import type { Machine } from '../machine/machine.ts'
import { partDirectories } from '../machine/parts.ts'

/** A reason may hold what a tool printed. */
const MAX_REASON_BYTES = 64 * 1024

/** Something that the write log does not know of was found. Until a restore has scanned the disk the log is not believed. */
interface LogDoubt {
  readonly reason: string
  /** ISO 8601. */
  readonly at: string
}

const KEY = 'disk'
const isDoubt: Check<LogDoubt> = object({ reason: anyText(MAX_REASON_BYTES), at: time })

const shelfOf = (state: StateDirectory): Shelf<LogDoubt> =>
  state.shelf('log-doubt', storedDocument('the doubt about the write log', isDoubt))

/** Durable when it resolves. */
export async function recordLogDoubt(state: StateDirectory, reason: string): Promise<void> {
  await shelfOf(state).putDurable(KEY, { reason, at: new Date().toISOString() })
}

/** Doubts the logs of all disks of this machine. Durable when it resolves. Errors: those of the state directories. */
export async function recordDoubts({ state, home }: Pick<Machine, 'state' | 'home'>, reason: string): Promise<void> {
  const held = new Set([state, home])
  for (const one of held) await recordLogDoubt(one, reason)
  const paths = new Set([...held].map(({ directory }) => directory))
  for (const stateDir of await partDirectories(home.directory)) {
    if (paths.has(stateDir)) continue
    const part = await StateDirectory.open(stateDir, { create: false })
    await recordLogDoubt(part, reason).finally(() => part.close())
  }
}

/** Why the log is not to be believed, if so. */
export async function readLogDoubt(state: StateDirectory): Promise<string | undefined> {
  const doubt = await shelfOf(state).get(KEY)
  return doubt === undefined ? undefined : `${doubt.reason} (${doubt.at})`
}

/** The disk was scanned and put right. Forgotten at the latest some time after; another scan would do no harm. */
export async function forgetLogDoubt(state: StateDirectory): Promise<void> {
  await shelfOf(state).del(KEY)
}
