import { closeSync, openSync, readFileSync, write } from 'node:fs'
import type { AgentEvent } from '../../../node/agent/machine/events.ts'
import { inGlyphs } from '../../boot/console-glyphs.ts'
import { drawScreen, type ScreenShape, type ScreenState } from './draw-screen.ts'
import { SCREEN_DRAIN_MS, SCREEN_EVERY_MS } from './limits.ts'

type Progress = Extract<AgentEvent, { type: 'progress' }>

/** What a console is written to. */
interface ScreenConsole {
  readonly name: string
  readonly fd: number
  readonly columns: number
  /** Set while a picture is on its way: a serial line takes 0.2 s for one, and must not hold up the restore. */
  writing: boolean
  shown: string
}

const CLEAR = '\u001b[2J\u001b[H\u001b[?25l'

/**
 * The full-screen picture on every console of the kernel, serial lines as well. It shows the newest state; what a slow console has
 * missed is not made up for.
 */
export class BootScreen {
  readonly #consoles: ScreenConsole[]
  readonly #shape: Omit<ScreenShape, 'columns'>
  readonly #wide: string
  #state: ScreenState = { at: 'starting' }
  #shownAt = Number.NEGATIVE_INFINITY
  #phase: Progress['phase'] | undefined
  #since = 0
  #from = 0
  #of: string | undefined

  /** `wide`: the characters of two columns that the kernel’s console has, as {@link inGlyphs} takes them. */
  constructor(
    shape: Omit<ScreenShape, 'columns'>,
    consoles: readonly { name: string; path: string; columns: number }[],
    wide = '',
  ) {
    this.#shape = shape
    this.#wide = wide
    this.#consoles = consoles.flatMap(({ name, path, columns }) => {
      const fd = openOrNot(path)
      return fd === undefined ? [] : [{ name, fd, columns, writing: false, shown: '' }]
    })
  }

  /** Shows a state at once. */
  show(state: ScreenState): void {
    this.#state = state
    this.#draw()
  }

  /** What is restored from now on, where a computer has several images. */
  about(image: string): void {
    this.#of = image
    this.show({ at: 'checking', of: image })
  }

  /** Somebody else has written to a console: the next picture is drawn in any case. */
  forget(): void {
    for (const one of this.#consoles) one.shown = ''
  }

  /** Shows what the restore tells of itself, a few times a second at most, and what a bare machine waits for. `at`: what it is part of. */
  event(event: AgentEvent, at?: 'keeping'): void {
    if (event.type === 'waiting') this.show({ at: 'asking', name: event.name, code: event.code, why: event.why })
    if (event.type !== 'progress') return
    const { phase, doneBytes, totalBytes } = event
    const now = performance.now()
    if (phase !== this.#phase) [this.#phase, this.#since, this.#from] = [phase, now, doneBytes]
    else if (now - this.#shownAt < SCREEN_EVERY_MS) return
    const rate = (doneBytes - this.#from) / Math.max(1, now - this.#since)
    const left = rate > 0 ? (totalBytes - doneBytes) / rate / 1000 : undefined
    this.show({
      at: at ?? (phase === 'restore' ? 'restoring' : 'checking'),
      done: totalBytes === 0 ? 1 : doneBytes / totalBytes,
      ...(this.#of === undefined || at !== undefined ? {} : { of: this.#of }),
      ...(left === undefined ? {} : { secondsLeft: left }),
    })
  }

  /** Waits until the last picture is on the consoles, but not long. */
  async close(): Promise<void> {
    const until = performance.now() + SCREEN_DRAIN_MS
    while (this.#consoles.some(({ writing }) => writing) && performance.now() < until)
      await new Promise((resolve) => setTimeout(resolve, 5))
    for (const { fd } of this.#consoles) closeSync(fd)
    this.#consoles.length = 0
  }

  #draw(): void {
    this.#shownAt = performance.now()
    for (const one of this.#consoles) this.#drawOn(one)
  }

  #drawOn(one: ScreenConsole): void {
    if (one.writing) return
    const picture = this.#pictureFor(one)
    if (picture === one.shown) return
    one.writing = true
    one.shown = picture
    const state = this.#state
    write(one.fd, `${CLEAR}${picture}\n`, () => {
      one.writing = false
      if (this.#state !== state) this.#drawOn(one)
    })
  }

  /** The kernel’s own console shows characters of East Asia by a font that the agent brings. Without it, it has none. */
  #pictureFor({ name, columns }: ScreenConsole): string {
    const { language: wanted } = this.#shape
    const isKernels = /^tty\d/.test(name)
    const language = isKernels && wanted === 'zh' && this.#wide === '' ? 'en' : wanted
    const picture = drawScreen(this.#state, { ...this.#shape, language, columns }).join('\n')
    return isKernels ? inGlyphs(picture, this.#wide) : picture
  }
}

function openOrNot(path: string): number | undefined {
  try {
    return openSync(path, 'w')
  } catch {
    return undefined
  }
}

/** The consoles of the kernel. `columns`: of the one that this process talks to, the last. */
export function kernelConsoles(columns: number): { name: string; path: string; columns: number }[] {
  const names = readFileSync('/sys/class/tty/console/active', 'utf8').trim().split(' ')
  return names.map((name, at) => ({ name, path: `/dev/${name}`, columns: at === names.length - 1 ? columns : 80 }))
}
