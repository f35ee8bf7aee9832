import { closeSync, constants, openSync } from 'node:fs'
import { ReadStream } from 'node:tty'

/** A key that was pressed, and the path of the console that it came from. */
export interface TypedKey {
  /** One character; `\r` is Enter, `\u001b` Escape, `\u007f` the key that deletes backwards. */
  readonly key: string
  readonly console: string
}

/** Serial lines may have nobody at the other end, which must not hold up opening them; none becomes the terminal of this process. */
const OPEN = constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK

/** The keyboards of all consoles of the kernel, serial lines as well, key by key and without an echo. */
export class ConsoleKeys {
  readonly #paths: readonly string[]
  #streams: ReadStream[] = []
  #typed: TypedKey[] = []
  #wake: (() => void) | undefined

  constructor(paths: readonly string[]) {
    this.#paths = paths
  }

  /** Begins to listen. A console that cannot be opened is left out. */
  open(): void {
    for (const path of this.#paths) {
      const stream = openKeyboard(path)
      if (stream === undefined) continue
      stream.on('error', () => stream.destroy())
      stream.on('data', (chunk: Buffer) => this.#take(chunk.toString('utf8'), path))
      this.#streams.push(stream)
    }
  }

  /** Leaves the consoles to somebody else, in the mode in which they were. */
  close(): void {
    for (const stream of this.#streams) {
      if (stream.destroyed) continue
      stream.setRawMode(false)
      stream.destroy()
    }
    this.#streams = []
    this.#typed = []
  }

  /** What was typed until now counts for nothing. */
  forget(): void {
    this.#typed = []
  }

  /** The next key; undefined if none comes within `ms` (undefined: however long), or when the signal aborts. One that has done so before ends no wait. */
  async next(ms: number | undefined, signal: AbortSignal): Promise<TypedKey | undefined> {
    if (this.#typed.length === 0)
      await new Promise<void>((resolve) => {
        // The timer also keeps the process alive where there is no keyboard.
        const timer = setInterval(() => ms !== undefined && done(), ms ?? 2 ** 30)
        const done = (): void => {
          clearInterval(timer)
          signal.removeEventListener('abort', done)
          this.#wake = undefined
          resolve()
        }
        this.#wake = done
        signal.addEventListener('abort', done)
      })
    return this.#typed.shift()
  }

  #take(text: string, console: string): void {
    // Arrows and function keys come as Escape with more behind it.
    if (text.length > 1 && text.startsWith('\u001b')) return
    for (const key of text.replaceAll('\r\n', '\r')) this.#typed.push({ key: KEYS[key] ?? key, console })
    this.#wake?.()
  }
}

const KEYS: Readonly<Record<string, string>> = { '\n': '\r', '\b': '\u007f' }

function openKeyboard(path: string): ReadStream | undefined {
  let fd: number | undefined
  try {
    fd = openSync(path, OPEN)
    const stream = new ReadStream(fd)
    stream.setRawMode(true)
    return stream
  } catch {
    if (fd !== undefined) closeSync(fd)
    return undefined
  }
}
