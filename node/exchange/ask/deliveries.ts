import type { FetchedBlock } from './fetch-request.ts'

/** Verified items of one fetch that wait for the consumer, and how the fetch ends. */
export class Deliveries {
  readonly #ready: FetchedBlock[] = []
  #bytes = 0
  #failure: Error | undefined
  #wake: (() => void) | undefined

  /** Bytes of the items that wait. */
  get bytes(): number {
    return this.#bytes
  }

  get isEmpty(): boolean {
    return this.#ready.length === 0
  }

  push(block: FetchedBlock): void {
    this.#ready.push(block)
    this.#bytes += block.data.byteLength
    this.#wakeConsumer()
  }

  /** Nothing more is delivered; the first reason counts. */
  fail(error: Error): void {
    this.#failure ??= error
    this.#wakeConsumer()
  }

  /** The next item; undefined if none waits. Errors: what the fetch failed with, once no item waits. */
  take(): FetchedBlock | undefined {
    const block = this.#ready.shift()
    if (block !== undefined) this.#bytes -= block.data.byteLength
    else if (this.#failure !== undefined) throw this.#failure
    return block
  }

  /** Resolves when an item comes or the fetch fails. One consumer waits at a time. */
  changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #wakeConsumer(): void {
    this.#wake?.()
    this.#wake = undefined
  }
}
