import type { ErrorCode } from '../../../protocol/errors.ts'
import { formatSeconds } from '../format.ts'
import { CATALOGUES, type Catalogue, type Language } from './catalogue.ts'

interface ProgressState {
  readonly at: 'starting' | 'checking' | 'looking' | 'restoring' | 'logging' | 'handing' | 'laying' | 'keeping'
  /** The image that is restored, where a computer has several. */
  readonly of?: string
  /** From 0 to 1. */
  readonly done?: number
  readonly secondsLeft?: number
}

/** What a machine that starts is at. */
export type ScreenState =
  | ProgressState
  | {
      readonly at: 'asking'
      readonly name: string
      /** Of the machine’s key. */
      readonly code: string
      /** What stands in the way, besides that nobody has approved it yet; may be empty. */
      readonly why: string
    }
  | {
      readonly at: 'failed'
      /** A code of `protocol/errors.ts`, or UNEXPECTED. */
      readonly code: string
      readonly message: string
      readonly next: 'hold' | 'retry' | 'start'
      readonly retrySeconds: number
      /** There is a menu behind a password. */
      readonly hasMenu?: boolean
    }
  | {
      readonly at: 'systems'
      readonly names: readonly string[]
      /** Index of the one that starts if nobody chooses. */
      readonly byDefault: number
      readonly secondsLeft: number
    }
  | { readonly at: 'password' }
  | { readonly at: 'wrong'; readonly waitSeconds: number }
  /** `mayStart`: the system may be started as it is. */
  | { readonly at: 'menu'; readonly mayStart: boolean }

/** How wide and in which language. */
export interface ScreenShape {
  /** The school’s own text; may be empty. */
  readonly text: string
  readonly language: Language
  /** Columns of the console, 50 or more look as intended. */
  readonly columns: number
}

const MARGIN = 2
const MOST_COLUMNS = 80
const BAR_COLUMNS = 40
/** The master says why a machine is not let in; a console has 24 lines. */
const MOST_WHY_CHARACTERS = 200

const NETWORK: readonly ErrorCode[] = ['PEERS_UNREACHABLE', 'BLOCKS_UNAVAILABLE', 'REQUEST_TIMEOUT', 'PORT_TAKEN']
const STATE: readonly ErrorCode[] = ['BOOT_STATE_MISSING', 'STATE_MISSING', 'STATE_CORRUPT', 'STATE_UNWRITABLE']
const DISK: readonly ErrorCode[] = ['DISK_MISSING', 'DISK_OTHER', 'DISK_AMBIGUOUS', 'DISK_IO']
const SITE: readonly ErrorCode[] = ['STATE_OTHER_SITE', 'MEMBER_REMOVED']

/** The lines of the screen, none longer than the console. */
export function drawScreen(state: ScreenState, { text, language, columns }: ScreenShape): string[] {
  const words: Catalogue = CATALOGUES[language]
  const width = Math.max(10, Math.min(columns, MOST_COLUMNS) - 2 * MARGIN)
  const paragraphs = paragraphsOf(state, words, width)
  const lines = [...(text === '' ? [] : [...wrap(text, width), '']), ...wrap(words.title, width), '', ...paragraphs]
  return ['', ...lines.flatMap((line) => wrap(line, width))].map((line) =>
    line === '' ? '' : ' '.repeat(MARGIN) + line,
  )
}

function paragraphsOf(state: ScreenState, words: Catalogue, width: number): string[] {
  switch (state.at) {
    case 'failed':
      return failure(state, words)
    case 'asking':
      return asking(state, words)
    case 'systems':
      return systems(state, words)
    case 'password':
      return [words.password]
    case 'wrong':
      return [words.wrong.replace('{}', String(state.waitSeconds))]
    case 'menu':
      return menu(state.mayStart, words)
    default:
      return [words[state.at], ...(state.of === undefined ? [] : [state.of]), ...progress(state, words, width)]
  }
}

function systems(
  { names, byDefault, secondsLeft }: Extract<ScreenState, { at: 'systems' }>,
  words: Catalogue,
): string[] {
  const lines = names.map((name, at) => `${at + 1}  ${name}`)
  const last = words.systemIn.replace('{}', String(byDefault + 1)).replace('{}', String(secondsLeft))
  return [words.systems, '', ...lines, '', last]
}

/** The keys are the same, whatever is allowed. */
function menu(mayStart: boolean, { choices }: Catalogue): string[] {
  const { retry, start, shell, reboot, poweroff, leave } = choices
  const lines = [retry, start, shell, reboot, poweroff].map((choice, at) => `${at + 1}  ${choice}`)
  return [...lines.filter((_, at) => at !== 1 || mayStart), '', `Esc  ${leave}`]
}

function progress({ done, secondsLeft }: ProgressState, words: Catalogue, width: number): string[] {
  if (done === undefined) return []
  const columns = Math.min(BAR_COLUMNS, width - 7)
  const full = Math.round(columns * Math.min(1, done))
  const bar = `[${'#'.repeat(full)}${'-'.repeat(columns - full)}] ${String(Math.floor(Math.min(1, done) * 100)).padStart(3)}%`
  return ['', bar, secondsLeft === undefined ? '' : words.left.replace('{}', formatSeconds(secondsLeft))]
}

function asking({ name, code, why }: Extract<ScreenState, { at: 'asking' }>, words: Catalogue): string[] {
  const head = [words.asking, '', words.name.replace('{}', name), words.code.replace('{}', code), '', words.compare]
  return why === '' ? head : [...head, '', `${words.details} ${why.slice(0, MOST_WHY_CHARACTERS)}`]
}

function failure(
  { code, message, next, retrySeconds, hasMenu }: Extract<ScreenState, { at: 'failed' }>,
  words: Catalogue,
): string[] {
  const choice = { hold: words.hold, retry: words.retry.replace('{}', String(retrySeconds)), start: words.unverified }[
    next
  ]
  return [
    words.failed,
    '',
    adviceFor(code, words),
    '',
    choice,
    ...(hasMenu === true ? [words.menu] : []),
    '',
    words.code.replace('{}', code),
    `${words.details} ${message}`,
  ]
}

function adviceFor(code: string, { advice }: Catalogue): string {
  const has = (codes: readonly string[]): boolean => codes.includes(code)
  if (has(NETWORK)) return advice.network
  if (has(STATE)) return advice.state
  if (has(DISK)) return advice.disk
  if (code === 'DISK_TOO_SMALL') return advice.small
  return has(SITE) ? advice.site : advice.technician
}

/** Whether a character takes two columns on a terminal: those of East Asia do. */
export function isWide(character: string): boolean {
  return /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/.test(character)
}

/** How many columns a text takes. */
export function textColumns(text: string): number {
  return [...text].reduce((sum, character) => sum + (isWide(character) ? 2 : 1), 0)
}

/** Breaks a text at spaces, at line breaks, and between characters that take two columns; a longer word is cut. */
function wrap(text: string, width: number): string[] {
  return text.split('\n').flatMap((paragraph) => {
    const lines: string[] = []
    let line = ''
    for (const word of paragraph.replaceAll(/\p{Cc}/gu, ' ').match(/ |[^ \u2e80-\uffef]+|[\u2e80-\uffef]/gu) ?? []) {
      for (const part of pieces(word, width)) {
        if (textColumns(line) + textColumns(part) > width) {
          lines.push(line.trimEnd())
          line = ''
        }
        if (line !== '' || part !== ' ') line += part
      }
    }
    return [...lines, line.trimEnd()]
  })
}

function pieces(word: string, width: number): string[] {
  const characters = [...word]
  const found: string[] = []
  for (let at = 0; at < characters.length; at += width) found.push(characters.slice(at, at + width).join(''))
  return found
}
