import type { MessageStream } from '@libp2p/interface'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { SILENCE_TICK_MS, SILENCE_TICKS } from '../../../node/net/limits.ts'
import { watchSilence } from '../../../node/net/watch-silence.ts'

/** A connection of which only what is watched is there. */
class FakeConnection extends EventTarget {
  readStatus = 'readable'
  received = 0
  aborted: Error | undefined

  onData(data: Uint8Array): void {
    this.received += data.byteLength
  }

  abort(error: Error): void {
    this.aborted = error
  }
}

function watched(): FakeConnection {
  const connection = new FakeConnection()
  watchSilence(connection as unknown as MessageStream)
  return connection
}

describe('watchSilence', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('ends a connection through which nothing comes', () => {
    const connection = watched()
    vi.advanceTimersByTime(SILENCE_TICK_MS * SILENCE_TICKS - 1)
    expect(connection.aborted).toBeUndefined()
    vi.advanceTimersByTime(1)
    expect(String(connection.aborted)).toContain('nothing came for 25 s')
  })

  it('takes each byte for life, and passes it on', () => {
    const connection = watched()
    for (let i = 0; i < 10; i++) {
      vi.advanceTimersByTime(SILENCE_TICK_MS * (SILENCE_TICKS - 1))
      connection.onData(new Uint8Array(1))
    }
    expect([connection.aborted, connection.received]).toEqual([undefined, 10])
  })

  it('does not blame the peer for what is not read here', () => {
    const connection = watched()
    connection.readStatus = 'paused'
    vi.advanceTimersByTime(SILENCE_TICK_MS * SILENCE_TICKS * 10)
    expect(connection.aborted).toBeUndefined()
  })

  it('ends with the connection, and leaves other kinds alone', () => {
    const connection = watched()
    connection.dispatchEvent(new Event('close'))
    expect(vi.getTimerCount()).toBe(0)
    watchSilence(new EventTarget() as unknown as MessageStream)
    expect(vi.getTimerCount()).toBe(0)
  })
})
