import type { Socket } from 'node:net'
import { CONTROL_BEAT_MS, CONTROL_DEADLINE_MS, MAX_CONTROL_BYTES } from './limits.ts'

/** Memory of a part of a request besides its bytes, about. A request that comes byte by byte has many. */
const PART_OVERHEAD_BYTES = 32

interface CallOptions {
  /** The line that answers the line of the request; it does not fail. */
  readonly answer: (line: string) => Promise<string>
  /** The caller has sent or taken something, or an answer waits for it. */
  readonly onProgress: () => void
}

/** One caller: a line comes in, an answer goes out. A request that is not whole within CONTROL_DEADLINE_MS is given up. */
export class ControlCall {
  readonly #socket: Socket
  readonly #options: CallOptions
  readonly #parts: string[] = []
  #partBytes = 0
  #answering = false

  constructor(socket: Socket, options: CallOptions) {
    this.#socket = socket
    this.#options = options
    const late = setTimeout(() => socket.destroy(), CONTROL_DEADLINE_MS)
    // A caller may go away without its answer.
    socket.on('error', () => socket.destroy())
    socket.on('close', () => clearTimeout(late))
    socket.setTimeout(CONTROL_DEADLINE_MS, () => socket.destroy())
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      const end = chunk.indexOf('\n')
      this.#parts.push(end === -1 ? chunk : chunk.slice(0, end))
      this.#partBytes += chunk.length + PART_OVERHEAD_BYTES
      if (this.#partBytes > MAX_CONTROL_BYTES) socket.destroy()
      else if (end !== -1) {
        socket.removeAllListeners('data').resume()
        clearTimeout(late)
        void this.#work()
      }
      options.onProgress()
    })
  }

  /** Whether a method is at work for this caller. */
  get isAnswering(): boolean {
    return this.#answering
  }

  /** Bytes in memory: of a request that is not whole, or of an answer that was not taken. */
  get bytes(): number {
    return this.#partBytes + this.#socket.writableLength
  }

  drop(): void {
    this.#socket.destroy()
  }

  async #work(): Promise<void> {
    const socket = this.#socket
    this.#answering = true
    const line = this.#parts.splice(0).join('')
    this.#partBytes = 0
    const beat = setInterval(() => socket.write(' '), CONTROL_BEAT_MS)
    socket.on('close', () => clearInterval(beat))
    const reply = await this.#options.answer(line)
    clearInterval(beat)
    this.#answering = false
    socket.end(reply)
    this.#options.onProgress()
  }
}
