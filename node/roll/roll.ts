/**
 * The folder node/roll resets the machines of a group a few at a time, so that every block stays on running machines.
 * - `roll` is the document of one roll: its rules, its state, the turn of each machine.
 * - `roll-step` decides what comes next, `waves` which machines may go down together, `window` at what hours. All are pure.
 * - `roll-operator` acts on that by a `Fleet` (the machines as it reaches them); `wake` powers machines on.
 * - `roll-order` pauses, resumes or ends a roll from another machine; `roll-report` says what came of it.
 */

import { MAX_ROLL_MACHINES, MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import { type Check, list, literal, natural, object, text, truth } from '../../protocol/json-shape.ts'

/** Names, ids, keys. */
const MAX_NAME_BYTES = 128
/** Of what other machines say a document has room for so much, that of all its machines included. */
const MAX_WHY_CHARACTERS = 80

/**
 * `claimed`: a new one, whose operator asks for the group; `running`; `paused`: by people, `stopped`: by failures, both until they say
 * resume; `aborting`: what is down is waited for; `aborted` and `done` are ends.
 */
const ROLL_STATES = ['claimed', 'running', 'paused', 'stopped', 'aborting', 'aborted', 'done'] as const
type RollState = (typeof ROLL_STATES)[number]

/**
 * `waiting` for its turn; `woken`: told to power on; `warned`: in use, goes down when its warning time is over; `down`: told
 * to reset; `back`: started again, its receipt is waited for; and the ends `verified`, `failed`, `skipped`.
 */
const TURNS = ['waiting', 'woken', 'warned', 'down', 'back', 'verified', 'failed', 'skipped'] as const
/** Where one machine stands in a roll, see the list above. */
export type Turn = (typeof TURNS)[number]

/** What people have decided about a roll before it began. */
export interface RollRules {
  /** Machines down at a time at most. */
  readonly wave: number
  /** Running machines that every block stays on. */
  readonly holders: number
  /** So many failures stop the roll. */
  readonly stopAfter: number
  readonly evenInUse: boolean
  /** Time from the warning until a machine in use goes down. */
  readonly warningSeconds: number
  /** When machines may go down, as `parseWindow` takes it; empty: always. */
  readonly window: string
  /** Whether machines that are off are powered on. */
  readonly wake: boolean
  /** Time for one machine from the reset to its receipt. */
  readonly timeoutSeconds: number
  /** How long machines are waited for that are in use, off or held back, when nothing else is left to do. */
  readonly patienceSeconds: number
}

/** One machine of a roll. Times are milliseconds since 1970 by the operator's clock. */
export interface RollMachine {
  readonly id: string
  readonly name: string
  readonly turn: Turn
  /** For people: why it waits, failed, was skipped. */
  readonly why: string
  /** Since when it has had this turn. */
  readonly since: number
  /** When it was last told to reset or to power on; 0: never. */
  readonly askedAt: number
  /** What names its running mesh process before the reset: another one means that it started again. */
  readonly process: string
  /** Its last receipt before the reset; in the end the one that tells of it. */
  readonly receipt: string
}

/** All there is to know of one roll; kept by the operator and by every machine of the group. */
export interface Roll {
  readonly format: 1
  /** Names the roll; two rolls never have the same. */
  readonly roll: string
  readonly group: string
  /** Raised by everybody who takes the roll over; of two documents the one with the higher (epoch, sequence) counts. */
  readonly epoch: number
  readonly sequence: number
  /** Peer id and name of the machine that runs it. */
  readonly operator: string
  readonly operatorName: string
  /** Whether its operator is at it; false once it has let go in good order. */
  readonly attended: boolean
  readonly image: string
  readonly release: number
  readonly rules: RollRules
  readonly state: RollState
  readonly why: string
  readonly startedAt: number
  /** 0 until it has ended. */
  readonly endedAt: number
  /** Since when nothing could be done; 0 while something can. */
  readonly idleSince: number
  /** Failures that people have seen when they last said resume. */
  readonly forgiven: number
  readonly machines: readonly RollMachine[]
}

/** Whether a roll is at its end: nobody can resume it. */
export function hasEnded({ state }: Roll): boolean {
  return state === 'aborted' || state === 'done'
}

/** It has been told to go down, and is not known to be well. */
export function isDown({ turn }: RollMachine): boolean {
  return turn === 'warned' || turn === 'down' || turn === 'back'
}

/** Whether a machine has had its turn, well or not. */
export function isOver({ turn }: RollMachine): boolean {
  return turn === 'verified' || turn === 'failed' || turn === 'skipped'
}

/** Whether `a` was written after `b` of the same group. */
export function isNewer(a: Pick<Roll, 'epoch' | 'sequence'>, b: typeof a): boolean {
  return a.epoch > b.epoch || (a.epoch === b.epoch && a.sequence > b.sequence)
}

const isName = text(MAX_NAME_BYTES)
const isRules: Check<RollRules> = object({
  wave: positive,
  holders: natural(),
  stopAfter: positive,
  evenInUse: truth,
  warningSeconds: natural(),
  window: text(MAX_TEXT_BYTES),
  wake: truth,
  timeoutSeconds: natural(),
  patienceSeconds: natural(),
})
const isMachine: Check<RollMachine> = object({
  id: isName,
  name: isName,
  turn: literal(...TURNS),
  why: text(MAX_TEXT_BYTES),
  since: natural(),
  askedAt: natural(),
  process: text(MAX_NAME_BYTES),
  receipt: text(MAX_NAME_BYTES),
})
const isDocument: Check<Roll> = object({
  format: (value): value is 1 => value === 1,
  roll: isName,
  group: text(MAX_TEXT_BYTES),
  epoch: positive,
  sequence: natural(),
  operator: isName,
  operatorName: isName,
  attended: truth,
  image: text(MAX_TEXT_BYTES),
  release: natural(),
  rules: isRules,
  state: literal(...ROLL_STATES),
  why: text(MAX_TEXT_BYTES),
  startedAt: natural(),
  endedAt: natural(),
  idleSince: natural(),
  forgiven: natural(),
  machines: list(isMachine, MAX_ROLL_MACHINES),
})

function positive(value: unknown): value is number {
  return natural()(value) && value > 0
}

/** What another machine has said, fit for a document: ASCII, and not much of it. */
export function brief(said: string): string {
  return said.replace(/[^ -~]+/g, ' ').slice(0, MAX_WHY_CHARACTERS)
}

/** A document as another machine, or a file, has it. Errors: PROTOCOL_VIOLATION. */
export function parseRoll(value: unknown): Roll {
  if (isDocument(value) && new Set(value.machines.map(({ id }) => id)).size === value.machines.length) return value
  throw new MeshError('PROTOCOL_VIOLATION', 'the document of a roll is damaged')
}
