import type { MessageStream } from '@libp2p/interface'
import { describe, expect, it } from 'vitest'
import { batched } from '../../../node/net/batched-connection.ts'
import { SEND_SMALL_BYTES } from '../../../node/net/limits.ts'

class FakeConnection {
  status = 'open'
  writableNeedsDrain = false
  readonly log: string[] = []

  send(data: Uint8Array): boolean {
    this.log.push(`send ${data.byteLength}`)
    return true
  }

  async close(): Promise<void> {
    this.log.push('close')
  }
}

function open(): { fake: FakeConnection; connection: MessageStream } {
  const fake = new FakeConnection()
  return { fake, connection: batched(fake as unknown as MessageStream) }
}

describe('a batched connection', () => {
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
