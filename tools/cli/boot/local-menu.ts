import type { ConsoleKeys, TypedKey } from '../screen/console-keys.ts'
import type { ScreenState } from '../screen/draw-screen.ts'
import { MENU_IDLE_MS, WRONG_PASSWORD_MOST_MS, WRONG_PASSWORD_MS } from '../screen/limits.ts'
import { isMenuPassword, type MenuFacts } from './menu-facts.ts'

/** What is to be done after a failure: restore again, or start the system as it is. */
export type Decision = 'retry' | 'start'

/** What a {@link LocalMenu} works with. */
interface LocalMenuOptions {
  /** Undefined if the lab has set no password: there is no menu then, and Enter tries again. */
  readonly facts: MenuFacts | undefined
  readonly keys: Pick<ConsoleKeys, 'open' | 'close' | 'forget' | 'next'>
  readonly screen: { show(state: ScreenState): void; forget(): void }
  /** A shell on this console, until it ends. */
  readonly shell: (console: string) => Promise<void>
  /** Does not return where it works. */
  readonly power: (how: 'reboot' | 'poweroff') => Promise<void>
  /** Into the log: who uses the menu leaves a trace. */
  readonly note: (text: string) => void
  readonly signal: AbortSignal
  /** @default WRONG_PASSWORD_MS */
  readonly wrongMs?: number
}

const ENTER = '\r'
const ESCAPE = '\u001b'
const DELETE = '\u007f'

/**
 * What a person at the machine can do after a failure. Enter tries again. With the lab’s password there is a menu: try again, start the
 * system unverified if the lab allows it, a shell, restart, switch off. It works on each console by itself, serial lines as well.
 */
export class LocalMenu {
  readonly #options: LocalMenuOptions
  /** Wrong passwords since the machine was switched on, or the right one came. */
  #wrong = 0

  constructor(options: LocalMenuOptions) {
    this.#options = options
  }

  /** Shows the failure, and waits until somebody decides; after `ms`, if nobody does, it is tried again. */
  async decide(failed: Extract<ScreenState, { at: 'failed' }>, ms: number | undefined): Promise<Decision> {
    const { keys, screen, facts, signal } = this.#options
    keys.open()
    try {
      for (;;) {
        screen.show({ ...failed, hasMenu: facts !== undefined })
        const typed = await keys.next(ms, signal)
        if (typed === undefined || typed.key === ENTER) return 'retry'
        if (facts === undefined || typed.key.toLowerCase() !== 'm') continue
        const decision = (await this.#mayEnter(facts)) ? await this.#choose(facts) : undefined
        if (decision !== undefined) return decision
      }
    } finally {
      keys.close()
    }
  }

  /** Asks for the password until it is right, or the person leaves. */
  async #mayEnter(facts: MenuFacts): Promise<boolean> {
    const { screen, keys, note, signal, wrongMs = WRONG_PASSWORD_MS } = this.#options
    for (;;) {
      screen.show({ at: 'password' })
      const typed = await this.#line()
      if (typed === undefined) return false
      if (await isMenuPassword(facts, typed)) {
        this.#wrong = 0
        note('the local menu was opened')
        return true
      }
      const waitMs = Math.min(WRONG_PASSWORD_MOST_MS, wrongMs * 2 ** this.#wrong++)
      note(`a wrong password was typed for the local menu, the ${this.#wrong}. in a row`)
      screen.show({ at: 'wrong', waitSeconds: Math.ceil(waitMs / 1000) })
      const until = performance.now() + waitMs
      while (performance.now() < until) await keys.next(until - performance.now(), signal)
      keys.forget()
    }
  }

  /** A line, which is not shown. Undefined if the person leaves, or has gone. */
  async #line(): Promise<string | undefined> {
    let line = ''
    for (;;) {
      const typed = await this.#key()
      if (typed === undefined || typed.key === ESCAPE) return undefined
      if (typed.key === ENTER) return line === '' ? undefined : line
      line = typed.key === DELETE ? line.slice(0, -1) : line + typed.key
    }
  }

  async #choose(facts: MenuFacts): Promise<Decision | undefined> {
    const { screen, shell, power, keys, note } = this.#options
    for (;;) {
      screen.show({ at: 'menu', mayStart: facts.mayStart })
      const typed = await this.#key()
      if (typed === undefined || typed.key === ESCAPE) return undefined
      if (typed.key === '1') return 'retry'
      if (typed.key === '2' && facts.mayStart) {
        note('the local menu starts the system unverified')
        return 'start'
      }
      if (typed.key === '3') {
        note('the local menu opens a shell')
        // The shell has the console for itself.
        keys.close()
        await shell(typed.console)
        keys.open()
        screen.forget()
      }
      if (typed.key === '4') await power('reboot')
      if (typed.key === '5') await power('poweroff')
    }
  }

  #key(): Promise<TypedKey | undefined> {
    return this.#options.keys.next(MENU_IDLE_MS, this.#options.signal)
  }
}
