import { execFile } from 'node:child_process'
import { IN_USE_DEADLINE_MS, IN_USE_TICK_MS } from './limits.ts'

/** Lists who is logged in, one a line. */
const DEFAULT_CHECK = 'who'

/** How a {@link UseWatch} looks, and whom it tells. */
interface UseWatchOptions {
  /** A command of the shell that prints something while somebody uses the machine; empty: nobody is looked for. */
  readonly check?: string | undefined
  readonly changed: (inUse: boolean) => void
  readonly warn: (text: string) => void
}

/** Looks now and then whether somebody uses this machine. */
export class UseWatch {
  readonly #options: UseWatchOptions
  #inUse = false
  #warned = false
  #timer: NodeJS.Timeout | undefined

  constructor(options: UseWatchOptions) {
    this.#options = options
  }

  get inUse(): boolean {
    return this.#inUse
  }

  start(): void {
    if (this.#options.check === '') return
    void this.look()
    this.#timer = setInterval(() => void this.look(), IN_USE_TICK_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /**
   * Looks now. Returns why the machine must be spared, if it must. A failed check is such a reason: it has not said that nobody is
   * there.
   */
  async look(): Promise<string | undefined> {
    const { check = DEFAULT_CHECK, changed } = this.#options
    if (check === '') return undefined
    const { output, failure } = await runCheck(check)
    if (failure !== undefined && this.#options.check !== undefined && !this.#warned) {
      this.#warned = true
      this.#options.warn(`the check whether this machine is in use failed, so it counts as not in use: ${failure}`)
    }
    const inUse = failure === undefined && output.trim() !== ''
    if (inUse !== this.#inUse) {
      this.#inUse = inUse
      changed(inUse)
    }
    if (failure !== undefined) return `the check whether the machine is in use failed: ${failure}`
    return inUse ? 'somebody uses the machine' : undefined
  }
}

/** A check fails if it cannot run or does not end. Another exit code than 0 is no failure: many programs say no by it. */
function runCheck(command: string): Promise<{ output: string; failure: string | undefined }> {
  return new Promise((resolve) => {
    execFile(
      '/bin/sh',
      ['-c', command],
      { timeout: IN_USE_DEADLINE_MS, killSignal: 'SIGKILL' },
      (error, output, errors) => {
        const cannotRun = error !== null && (typeof error.code !== 'number' || error.code >= 126)
        const failure = cannotRun ? errors.trim() || `${command} did not end in time` : undefined
        resolve({ output, failure })
      },
    )
  })
}
