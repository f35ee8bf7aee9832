import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { type ControlMethod, ControlServer } from '../../control/control-server.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import type { AgentEvent } from './events.ts'
import { askedValues } from './held-values.ts'
import type { ServicePart } from './service-part.ts'
import { describeWork, type Work } from './work.ts'

/** What a {@link Desk} works with. */
interface DeskOptions {
  readonly state: StateDirectory
  /** Name of the command that holds the directory. */
  readonly command?: string | undefined
  readonly report: (event: AgentEvent) => void
  /** More methods are about to come, until `opened` is called: whoever asks for one waits. @default false */
  readonly opening?: boolean | undefined
}

/**
 * Where other commands of this computer ask the one that holds the state directory, from the moment it has it until it gives it
 * back. Every command answers what it is at (`work`) and what the database holds (`value`, `values`), so that whoever only reads
 * never waits. Rooms add what else the command can answer. The rest is refused with STATE_BUSY, which says what runs, and how far it is.
 */
export class Desk {
  readonly #options: DeskOptions
  readonly #methods = new Map<string, ControlMethod>()
  readonly #since = new Date().toISOString()
  readonly #begun = performance.now()
  #server: ControlServer | undefined
  #progress: { readonly at: NonNullable<Work['progress']>; readonly begun: number } | undefined
  #told: string | undefined
  readonly #opening = Promise.withResolvers<void>()

  private constructor(options: DeskOptions) {
    this.#options = options
    if (options.opening !== true) this.#opening.resolve()
  }

  /** Opens the control socket. Where no socket can be had the command works all the same, and a warning says so. */
  static async open(options: DeskOptions): Promise<Desk> {
    const desk = new Desk(options)
    const { state, report } = options
    for (const text of state.wasOpen) report({ type: 'warning', text })
    state.onRefused((text) => report({ type: 'warning', text }))
    desk.answer({ methods: { work: async () => desk.work(), ...askedValues(state.values) } })
    try {
      desk.#server = await ControlServer.listen(state.directory, (name) => desk.#find(name))
    } catch (error) {
      if (!isMeshError(error)) throw error
      report({ type: 'warning', text: `other mesh commands cannot ask this one while it runs: ${error.message}` })
    }
    return desk
  }

  /** From now on these methods are answered, too, until the result is called. */
  answer({ methods = {} }: Pick<ServicePart, 'methods'>): () => void {
    for (const [name, method] of Object.entries(methods)) this.#methods.set(name, method)
    return () => {
      for (const name of Object.keys(methods)) this.#methods.delete(name)
    }
  }

  /** All methods are there. */
  opened(): void {
    this.#opening.resolve()
  }

  /** Notes what an event says of the work. */
  note(event: AgentEvent): void {
    const now = performance.now()
    if (event.type === 'progress') {
      const { phase, doneBytes, totalBytes } = event
      const begun = this.#progress?.at.phase === phase ? this.#progress.begun : now
      this.#progress = { at: { phase, doneBytes, totalBytes, seconds: (now - begun) / 1000 }, begun }
    } else if (event.type === 'roll')
      this.#told = `the roll is ${event.state}${event.why === '' ? '' : `: ${event.why}`}`
  }

  work(): Work {
    const { at, begun } = this.#progress ?? {}
    const now = performance.now()
    const isUnderWay = at !== undefined && begun !== undefined && at.doneBytes < at.totalBytes
    return {
      command: this.#options.command ?? 'command',
      pid: process.pid,
      since: this.#since,
      seconds: (now - this.#begun) / 1000,
      ...(isUnderWay ? { progress: { ...at, seconds: (now - begun) / 1000 } } : {}),
      ...(this.#told === undefined ? {} : { told: this.#told }),
      ...(this.#server === undefined ? {} : { callers: this.#server.figures() }),
    }
  }

  async close(): Promise<void> {
    this.opened()
    await this.#server?.close()
  }

  /** Errors: STATE_BUSY. */
  async #find(name: string): Promise<ControlMethod> {
    if (!this.#methods.has(name)) await this.#opening.promise
    const method = this.#methods.get(name)
    if (method !== undefined) return method
    const text = `this cannot be answered now: ${this.#options.state.directory} is in use by ${describeWork(this.work())}`
    throw new MeshError('STATE_BUSY', text)
  }
}
