import { spawn } from 'node:child_process'
import { MeshError } from '../../protocol/errors.ts'
import { RESET_COMMAND_DEADLINE_MS, RESET_DELAY_MS } from './limits.ts'

/** How this machine is reset and how its user is warned. */
export interface ResetterOptions {
  /** Command of the shell that resets the machine; empty: it is not reset from afar. */
  readonly command: string
  /** Command of the shell that gets a warning on its standard input and shows it to whoever uses the machine. */
  readonly warnCommand: string
  /** Looks whether somebody uses the machine: why it must be spared, or undefined. */
  readonly inUse: () => Promise<string | undefined>
  readonly warn: (text: string) => void
}

/** What an operator asks for. `evenInUse`: also while somebody uses the machine, after `warningSeconds`. */
interface ResetOrder {
  readonly warningSeconds: number
  readonly evenInUse: boolean
  /** Looks, when the time has come, why the reset is not wanted any more; undefined if it is. */
  readonly calledOff: () => Promise<string | undefined>
}

/** Resets this machine when an operator asks for it, but nobody who uses it without need or warning. */
export class Resetter {
  readonly #options: ResetterOptions
  #timer: NodeJS.Timeout | undefined
  #pending = false
  #failure: string | undefined

  constructor(options: ResetterOptions) {
    this.#options = options
  }

  /** Whether a reset was granted that has not happened yet, and why the last one did not. */
  get state(): { pending: boolean; failure: string | null } {
    return { pending: this.#pending, failure: this.#failure ?? null }
  }

  /**
   * Grants a reset, or throws; it happens a moment later, or when whoever uses the machine has had the warning. One that is
   * under way already is not granted twice. Errors: RESET_DISABLED, MACHINE_IN_USE.
   */
  async request(order: ResetOrder): Promise<void> {
    const { command, inUse } = this.#options
    if (command === '') throw new MeshError('RESET_DISABLED', 'this machine is not reset from afar')
    if (this.#pending) return
    this.#pending = true
    this.#failure = undefined
    try {
      const used = await inUse()
      if (used !== undefined && !order.evenInUse) throw new MeshError('MACHINE_IN_USE', used)
      const warned = used !== undefined && order.warningSeconds > 0
      if (warned) this.#warnUser(order.warningSeconds)
      const delayMs = warned ? order.warningSeconds * 1000 : RESET_DELAY_MS
      this.#timer = setTimeout(() => void this.#reset(order), delayMs)
    } catch (error) {
      this.#pending = false
      throw error
    }
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #warnUser(seconds: number): void {
    const text = `This machine is reset in ${seconds} seconds. Save your work now.\n`
    void run(this.#options.warnCommand, text).then((failure) => {
      if (failure !== undefined) this.#options.warn(`nobody could be warned of the reset: ${failure}`)
    })
  }

  async #reset(order: ResetOrder): Promise<void> {
    // Somebody may have logged in meanwhile.
    const used = order.evenInUse ? undefined : await this.#options.inUse()
    const calledOff = used ?? (await order.calledOff())
    this.#failure = calledOff ?? (await run(this.#options.command, ''))
    this.#pending = false
    if (this.#failure !== undefined) this.#options.warn(`the machine was not reset: ${this.#failure}`)
  }
}

/** Runs a command of the shell with `input`; returns why it failed. It outlives this process, which it may be about to end. */
function run(command: string, input: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn('/bin/sh', ['-c', command], { stdio: ['pipe', 'ignore', 'ignore'], detached: true })
    const timer = setTimeout(() => {
      // The whole group: the shell may have started others.
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      resolve(`${command} did not end in time`)
    }, RESET_COMMAND_DEADLINE_MS)
    const end = (failure: string | undefined): void => {
      clearTimeout(timer)
      resolve(failure)
    }
    child.on('error', (error) => end(`${command} cannot be run: ${error.message}`))
    child.on('exit', (code, signal) => end(code === 0 ? undefined : `${command} ended with ${code ?? signal}`))
    // A command that reads nothing is none of our business.
    child.stdin.on('error', () => undefined)
    child.stdin.end(input)
    child.unref()
  })
}
