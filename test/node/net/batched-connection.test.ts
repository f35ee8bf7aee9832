import { setTimeout as sleep } from 'node:timers/promises'
import type { MessageStream } from '@libp2p/interface'
import { describe, expect, it } from 'vitest'
import { batched } from '../../../node/net/batched-connection.ts'
import { READ_BATCH_MS, READ_BATCH_PIECES, SEND_SMALL_BYTES } from '../../../protocol/constants.ts'

type Listener = (event: { data: Uint8Array }) => void

/** What a connection of libp2p does with data: it waits until somebody listens, and while the connection is paused. */
class FakeConnection {
  status = 'open'
  writableNeedsDrain = false
  readonly log: string[] = []
  readonly #listeners = new Set<Listener>()
  #waiting: Uint8Array[] = []
  paused = false

  addEventListener(_type: string, listener: Listener): void {
    this.#listeners.add(listener)
  }

  removeEventListener(_type: string, listener: Listener): void {
    this.#listeners.delete(listener)
  }

  listenerCount(): number {
    return this.#listeners.size
  }

  arrive(data: Uint8Array): void {
    this.#waiting.push(data)
    this.#dispatch()
  }

  pause(): void {
    this.paused = true
    this.log.push('pause')
  }

  resume(): void {
    this.paused = false
    this.log.push('resume')
    this.#dispatch()
  }

  send(data: Uint8Array): boolean {
    this.log.push(`send ${data.byteLength}`)
    return true
  }

  async close(): Promise<void> {
    this.log.push('close')
  }

  #dispatch(): void {
    if (this.#listeners.size === 0 || this.paused) return
    for (const data of this.#waiting.splice(0)) for (const listener of this.#listeners) listener({ data })
  }
}

function open(): { fake: FakeConnection; connection: MessageStream } {
  const fake = new FakeConnection()
  return { fake, connection: batched(fake as unknown as MessageStream) }
}

describe('a batched connection', () => {
  it('keeps what comes while nobody above listens', () => {
    const { fake, connection } = open()
    const got: number[] = []
    const listener = ({ data }: { data: Uint8Array }) => got.push(data[0]!)
    fake.arrive(Uint8Array.of(1))
    connection.addEventListener('message', listener as never)
    fake.arrive(Uint8Array.of(2))
    connection.removeEventListener('message', listener as never)
    fake.arrive(Uint8Array.of(3))
    connection.addEventListener('message', listener as never)
    fake.arrive(Uint8Array.of(4))
    expect(got).toEqual([1, 2, 3, 4])
  })

  it('rests while small pieces stream in, unless the layer above has stopped it, and never for good', async () => {
    const { fake, connection } = open()
    connection.addEventListener('message', (() => undefined) as never)
    for (let i = 0; i < READ_BATCH_PIECES; i++) fake.arrive(Buffer.alloc(1000))
    expect(fake.paused).toBe(true)
    await sleep(5 * READ_BATCH_MS)
    expect(fake.log).toEqual(['pause', 'resume'])
    for (let i = 0; i < READ_BATCH_PIECES; i++) fake.arrive(Buffer.alloc(1000))
    expect(fake.log).toEqual(['pause', 'resume', 'pause'])
    connection.pause()
    await sleep(5 * READ_BATCH_MS)
    expect(fake.paused).toBe(true)
    connection.resume()
    expect(fake.paused).toBe(false)
  })

  it('does not rest for single messages, nor for large pieces', async () => {
    const { fake, connection } = open()
    connection.addEventListener('message', (() => undefined) as never)
    for (let i = 0; i < 3; i++) {
      fake.arrive(Buffer.alloc(100))
      await sleep(3 * READ_BATCH_MS)
    }
    for (let i = 0; i < 20; i++) fake.arrive(Buffer.alloc(65536))
    expect(fake.log).toEqual([])
  })

  it('sends what is sent in one turn at once, and before it closes', async () => {
    const { fake, connection } = open()
    for (let i = 0; i < 5; i++) connection.send(Buffer.alloc(12))
    expect(fake.log).toEqual([])
    await new Promise((resolve) => setImmediate(resolve))
    expect(fake.log).toEqual(['send 60'])
    connection.send(Buffer.alloc(SEND_SMALL_BYTES))
    connection.send(Buffer.alloc(10))
    await Promise.resolve()
    expect(fake.log).toEqual(['send 60', `send ${SEND_SMALL_BYTES + 10}`])
    connection.send(Buffer.alloc(7))
    await connection.close()
    expect(fake.log.slice(2)).toEqual(['send 7', 'close'])
  })
})
