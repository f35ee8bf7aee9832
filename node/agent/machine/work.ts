import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import {
  anyText,
  type Check,
  literal,
  natural,
  object,
  optional,
  real,
  text,
  time,
} from '../../../protocol/json-shape.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { callControl } from '../../control/control-client.ts'
import type { ControlFigures } from '../../control/control-server.ts'
import { PHASES, type Progress } from '../../disk/progress.ts'

/** What the command is at that holds a state directory; other commands ask it. */
export interface Work {
  /** Its name, such as `restore` or `roll start`. */
  readonly command: string
  readonly pid: number
  /** When it took the directory: ISO 8601, and seconds by a clock that nobody sets. */
  readonly since: string
  readonly seconds: number
  /** The long piece of work that is under way, and for how many seconds. */
  readonly progress?: Progress & { readonly seconds: number }
  /** What else it told last of its work: the state of a roll. */
  readonly told?: string
  /** Programs of this computer that ask it now; absent from earlier versions. */
  readonly callers?: ControlFigures
}

/** What is told last may name machines. */
const MAX_TOLD_BYTES = 64 * 1024

/** What a command of another version answers to `work` must be this. */
const isWork: Check<Work> = object({
  command: text(MAX_TEXT_BYTES),
  pid: natural(),
  since: time,
  seconds: real,
  progress: optional(object({ phase: literal(...PHASES), doneBytes: natural(), totalBytes: natural(), seconds: real })),
  told: optional(anyText(MAX_TOLD_BYTES)),
  callers: optional(
    object({
      connections: natural(),
      mostConnections: natural(),
      waitingBytes: natural(),
      mostWaitingBytes: natural(),
    }),
  ),
})

/**
 * What the command is at that holds a state directory; undefined if none answers. Errors: STATE_UNWRITABLE if it belongs to
 * another user, REQUEST_TIMEOUT.
 */
export async function askWork(stateDir: string): Promise<Work | undefined> {
  try {
    return await callControl(stateDir, 'work', isWork)
  } catch (error) {
    // A command of an earlier version has no such method (USAGE).
    if (isMeshError(error, 'STATE_NOT_RUNNING', 'USAGE')) return undefined
    throw error
  }
}

/** Whether that command serves until it is told to stop, and does not end by itself. */
export function isServer({ command }: Pick<Work, 'command'>): boolean {
  return command === 'up' || command === 'seed'
}

/** `mesh restore (pid 812), since 2026-11-30 10:00:00 UTC+01:00: restore, 37 % done`. */
export function describeWork({ command, pid, since, progress, told }: Work): string {
  const who = `mesh ${command} (pid ${pid}), since ${formatTime(since)}`
  if (progress !== undefined) {
    const { phase, doneBytes, totalBytes } = progress
    return `${who}: ${WORDS[phase]}, ${Math.floor((100 * doneBytes) / Math.max(1, totalBytes))} % done`
  }
  return told === undefined ? who : `${who}: ${told}`
}

const WORDS: Readonly<Record<Progress['phase'], string>> = {
  copy: 'copying the disk',
  hash: 'hashing the disk',
  repeats: 'comparing what repeats',
  tree: 'fetching the hash tree',
  scan: 'scanning the disk',
  restore: 'restoring the disk',
  verify: 'verifying the disk',
}
