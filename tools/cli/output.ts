import { SingleBar } from 'cli-progress'
import type { AgentEvent } from '../../node/agent/machine/events.ts'
import type { Progress } from '../../node/disk/progress.ts'
import type { MeshError } from '../../protocol/errors.ts'
import type { ServeEvent } from '../boot/serve/serve-events.ts'
import { describeStart } from './boot/start-text.ts'
import { describeChange } from './change-text.ts'
import { errorJson, errorLines } from './error-lines.ts'
import { formatBytes, formatSeconds } from './format.ts'

const LINE_EVERY_MS = 2_000
const JSON_PROGRESS_EVERY_MS = 500

/** What people are told of a phase. */
export const PHASES: Readonly<Record<Progress['phase'], string>> = {
  copy: 'Copying',
  hash: 'Hashing',
  repeats: 'Comparing what repeats',
  tree: 'Fetching the hash tree',
  scan: 'Scanning',
  restore: 'Restoring',
  verify: 'Verifying',
}

type ProgressEvent = Extract<AgentEvent, { type: 'progress' }>
type AnyEvent = AgentEvent | ServeEvent

/**
 * Prints everything that a command says. Results go to standard output. Events on the way go there as JSON lines with
 * `--json`, and otherwise to standard error: as a bar on a terminal, as a line every 2 s elsewhere.
 */
export class Output {
  readonly json: boolean
  readonly #quiet: boolean
  #bar: SingleBar | undefined
  #phase: Progress['phase'] | undefined
  #phaseStartedAt = 0
  #phaseStartedWith = 0
  #shownAt = 0
  #hasStatus = false

  constructor(options: { json: boolean; quiet: boolean }) {
    this.json = options.json
    this.#quiet = options.quiet
  }

  /** The outcome: one JSON line, or text for people. */
  result(value: object, text: string): void {
    this.close()
    process.stdout.write(this.json ? `${JSON.stringify(value)}\n` : `${text}\n`)
  }

  event(event: AnyEvent): void {
    if (this.#quiet) return
    if (this.json) this.#jsonEvent(event)
    else this.#humanEvent(event)
  }

  #humanEvent(event: AnyEvent): void {
    if (event.type === 'progress') {
      this.#progress(event)
      return
    }
    const text = describeEvent(event)
    if (text !== undefined) this.#line(text)
  }

  error(error: MeshError): void {
    this.close()
    process.stderr.write(errorLines(error))
    if (this.json) process.stdout.write(errorJson(error))
  }

  unexpected(error: unknown): void {
    this.close()
    const message = error instanceof Error ? error.message : String(error)
    process.stderr.write(
      `mesh: unexpected error: ${message}\n      Please report it; MESH_DEBUG=1 shows where it happened.\n`,
    )
    if (process.env.MESH_DEBUG !== undefined && error instanceof Error) process.stderr.write(`${error.stack}\n`)
    if (this.json) process.stdout.write(`${JSON.stringify({ event: 'error', code: 'UNEXPECTED', message })}\n`)
  }

  /** Shows what goes on, on a terminal only, in place of what was shown before; empty: nothing. */
  status(text: string): void {
    if (this.#quiet || this.json || !process.stderr.isTTY) return
    this.#clearStatus()
    if (text === '') return
    process.stderr.write(text.slice(0, (process.stderr.columns || 80) - 1))
    this.#hasStatus = true
  }

  /** Ends a progress bar or a line of {@link status}, if one is shown. */
  close(): void {
    this.#bar?.stop()
    this.#bar = undefined
    this.#clearStatus()
  }

  #clearStatus(): void {
    if (this.#hasStatus) process.stderr.write('\r\x1b[K')
    this.#hasStatus = false
  }

  #jsonEvent(event: AnyEvent): void {
    // The result is printed by the command, as the last line.
    if (event.type === 'published' || event.type === 'receipt') return
    if (event.type === 'progress' && !this.#isDue(event, JSON_PROGRESS_EVERY_MS)) return
    const { type, ...rest } = event
    process.stdout.write(`${JSON.stringify({ event: type, ...rest })}\n`)
  }

  #progress(event: ProgressEvent): void {
    if (process.stderr.isTTY) this.#showBar(event)
    else if (this.#isDue(event, LINE_EVERY_MS)) {
      process.stderr.write(`${PHASES[event.phase]}: ${describe(event, this.#rate(event))}\n`)
    }
  }

  #showBar(event: ProgressEvent): void {
    if (event.phase !== this.#phase) {
      this.close()
      this.#begin(event)
    }
    if (this.#bar === undefined) {
      this.#bar = new SingleBar({
        format: `${PHASES[event.phase]} [{bar}] {percentage}%  {facts}`,
        barCompleteChar: '#',
        barIncompleteChar: '-',
        barsize: 24,
        hideCursor: true,
        clearOnComplete: true,
        stream: process.stderr,
        fps: 5,
      })
      this.#bar.start(event.totalBytes, event.doneBytes, { facts: '' })
    }
    this.#bar?.setTotal(event.totalBytes)
    this.#bar?.update(event.doneBytes, { facts: describe(event, this.#rate(event)) })
  }

  /** Whether a line is due: at the beginning and the end of a phase, and now and then. */
  #isDue(event: ProgressEvent, everyMs: number): boolean {
    const now = performance.now()
    const fresh = event.phase !== this.#phase
    if (fresh) this.#begin(event)
    if (!fresh && now - this.#shownAt < everyMs && event.doneBytes < event.totalBytes) return false
    this.#shownAt = now
    return true
  }

  #begin(event: ProgressEvent): void {
    this.#phase = event.phase
    this.#phaseStartedAt = performance.now()
    this.#phaseStartedWith = event.doneBytes
  }

  #rate(event: ProgressEvent): number {
    return ((event.doneBytes - this.#phaseStartedWith) * 1000) / Math.max(1, performance.now() - this.#phaseStartedAt)
  }

  #line(text: string): void {
    this.close()
    process.stderr.write(`${text}\n`)
  }
}

/** One line for people; undefined for an event that the command prints itself, as its result. */
function describeEvent(event: Exclude<AnyEvent, ProgressEvent>): string | undefined {
  switch (event.type) {
    case 'note':
      return event.text
    case 'warning':
      return `warning: ${event.text}`
    case 'listening':
      return `listening on ${event.addresses.join(', ')}`
    case 'serving':
      return `serving ${event.image} release ${event.release}: ${event.blocks} blocks`
    case 'staged':
      return `staged ${event.image} release ${event.release}: ${event.staged} blocks for the next restore`
    case 'monitoring':
      return `serving ${event.disk} at ${event.uri || 'the socket that was handed over'}; the log is ${describeLog(event)}`
    case 'hook':
      return describeHook(event)
    case 'waiting':
      return `this machine is ${event.name}, code ${event.code}: it ${event.why === 'looks for the master' ? event.why : `waits to be approved${event.why === '' ? '' : ` (${event.why})`}`}`
    case 'member':
      return `${event.name} joined`
    case 'peer':
      return `${event.name} ${event.up ? 'connected' : 'disconnected'}`
    case 'roll':
      return `the roll is ${event.state}${event.why === '' ? '' : `: ${event.why}`}`
    case 'turn':
      return `${event.machine}: ${event.turn}${event.why === '' ? '' : `, ${event.why}`}`
    case 'holders':
      return `every block is on ${event.least} running machines or more; down: ${event.down.join(' ') || 'nobody'}`
    case 'change':
      return describeChange(event.change)
    case 'boot-serving':
    case 'boot-machine':
      return describeStart(event)
    case 'published':
    case 'receipt':
      return undefined
  }
}

function describeHook({ name, ok, why, seconds, output }: Extract<AgentEvent, { type: 'hook' }>): string {
  const first = `${ok ? '' : 'warning: '}hook ${name}: ${ok ? 'done' : why} (${formatSeconds(seconds)})`
  return [first, ...(output === '' ? [] : output.split('\n').map((line) => `  ${line}`))].join('\n')
}

function describeLog({ state, dirty }: Extract<AgentEvent, { type: 'monitoring' }>): string {
  return state === 'dirty' ? `dirty: ${dirty} units` : state
}

function describe(event: ProgressEvent, rate: number): string {
  const parts = [`${formatBytes(event.doneBytes)} of ${formatBytes(event.totalBytes)}`]
  if (rate > 0) {
    parts.push(`${formatBytes(rate)}/s`)
    if (event.doneBytes < event.totalBytes)
      parts.push(`${formatSeconds((event.totalBytes - event.doneBytes) / rate)} left`)
  }
  if (event.peers !== undefined) parts.push(event.peers === 1 ? '1 peer' : `${event.peers} peers`)
  return parts.join(', ')
}
