/**
 * The folder node/roll resets the machines of a group a few at a time, so that every block stays on running machines.
 * - `roll` is the document of one roll: its rules, its state, the turn of each machine.
 * - `roll-step` decides what comes next, `waves` which machines may go down together, `window` at what hours. All are pure.
 * - `roll-operator` acts on that by a `Fleet` (the machines as it reaches them); `wake` powers machines on.
 * - `roll-order` pauses, resumes or ends a roll from another machine; `roll-report` says what came of it.
 */

import { MAX_ROLL_MACHINES, MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { checkDocument, type DocumentShape } from '../../protocol/document.ts'
import { type Check, list, literal, natural, object, text, truth, which } from '../../protocol/json-shape.ts'

/** Bytes of a name, an id or a key. */
const MAX_NAME_BYTES = 128
/**
 * Characters of another machine's text that go into a document. The document must have room for the texts of all its
 * machines.
 */
const MAX_WHY_CHARACTERS = 80

/**
 * `claimed`: a new roll, whose operator asks for the group. `running`. `paused` by people, or `stopped` by failures,
 * until people say resume. `aborting`: machines that are down are waited for. `aborted` and `done` are ends.
 */
const ROLL_STATES = ['claimed', 'running', 'paused', 'stopped', 'aborting', 'aborted', 'done'] as const
type RollState = (typeof ROLL_STATES)[number]

/**
 * `waiting` for its turn. `woken`: told to power on. `warned`: in use, goes down when the time of the warning is over.
 * `down`: told to reset. `back`: has started again, and its receipt is waited for. `verified`, `failed` and `skipped`
 * are ends.
 */
export const TURNS = ['waiting', 'woken', 'warned', 'down', 'back', 'verified', 'failed', 'skipped'] as const
/** Where one machine stands in a roll, see the list above. */
export type Turn = (typeof TURNS)[number]

/** What people have decided about a roll before it began. */
export interface RollRules {
  /** Machines that are down at the same time, at most. */
  readonly wave: number
  /** Running machines that every block stays on, at least. */
  readonly holders: number
  /** Failures that stop the roll. */
  readonly stopAfter: number
  readonly evenInUse: boolean
  /** Time from the warning until a machine in use goes down. */
  readonly warningSeconds: number
  /** When machines may go down, as `parseWindow` takes it; empty: always. */
  readonly window: string
  /** Whether machines that are off are powered on. */
  readonly wake: boolean
  /** Time for one machine, from its reset to its receipt. */
  readonly timeoutSeconds: number
  /** Time to wait for machines that are in use, off or held back, when nothing else is left to do. */
  readonly patienceSeconds: number
}

/** One machine of a roll. Times are milliseconds since 1970 by the operator's clock. */
export interface RollMachine {
  readonly id: string
  readonly name: string
  readonly turn: Turn
  /** For people: why it waits, failed, was skipped. */
  readonly why: string
  /** When this turn began. */
  readonly since: number
  /** When the machine was last told to reset or to power on; 0: never. */
  readonly askedAt: number
  /** Name of its mesh process before the reset. Another name means that the machine has started again. */
  readonly process: string
  /** Its last receipt before the reset; at the end the receipt of this reset. */
  readonly receipt: string
}

/** All there is to know of one roll. The operator and every machine of the group keep it. */
export interface Roll {
  readonly format: 1
  /** Names the roll. No two rolls have the same name. */
  readonly roll: string
  readonly group: string
  /**
   * Whoever takes the roll over raises the epoch. Of two documents the one with the higher (epoch, sequence) counts.
   */
  readonly epoch: number
  readonly sequence: number
  /** Peer id and name of the machine that runs it. */
  readonly operator: string
  readonly operatorName: string
  /** Whether the operator is at work; false once it has let go in good order. */
  readonly attended: boolean
  readonly image: string
  readonly release: number
  readonly rules: RollRules
  readonly state: RollState
  readonly why: string
  readonly startedAt: number
  /** When the roll ended; 0 until then. */
  readonly endedAt: number
  /** Since when nothing could be done; 0 while something can. */
  readonly idleSince: number
  /** Failures that people had seen when they last said resume. */
  readonly forgiven: number
  readonly machines: readonly RollMachine[]
}

/** Whether a roll is at its end: nobody can resume it. */
export function hasEnded({ state }: Roll): boolean {
  return state === 'aborted' || state === 'done'
}

/** Whether a machine has been told to go down and is not known to be well. */
export function isDown({ turn }: RollMachine): boolean {
  return turn === 'warned' || turn === 'down' || turn === 'back'
}

/** Whether a machine has had its turn, well or not. */
export function isOver({ turn }: RollMachine): boolean {
  return turn === 'verified' || turn === 'failed' || turn === 'skipped'
}

/** Why a machine waits, or was skipped, that does not answer. */
export const IS_OFF = 'is off'
/** Why a machine was skipped that was powered on in vain. */
export const NOT_POWERED_ON = 'was told to power on, and did not come up'

/**
 * Whether nobody knows what became of a machine: it went down and no receipt of that came back, or it was off all the time.
 */
export function isMissing({ turn, why, receipt }: Pick<RollMachine, 'turn' | 'why' | 'receipt'>): boolean {
  return (turn === 'failed' && receipt === '') || (turn === 'skipped' && (why === IS_OFF || why === NOT_POWERED_ON))
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

/** Makes another machine's text fit for a document: ASCII, and at most 80 characters. */
export function brief(said: string): string {
  return said.replace(/[^ -~]+/g, ' ').slice(0, MAX_WHY_CHARACTERS)
}

const ROLL: DocumentShape<Roll> = {
  name: 'the document of a roll',
  shape: which(isDocument, ({ machines }) => new Set(machines.map(({ id }) => id)).size === machines.length),
  fault: 'PROTOCOL_VIOLATION',
}

/** Reads a document that another machine, or a file, has. Errors: PROTOCOL_VIOLATION, FORMAT_NEWER. */
export function parseRoll(value: unknown): Roll {
  return checkDocument(ROLL, value)
}
