import { describe, expect, it } from 'vitest'
import { SESSION_CREDIT_BYTES } from '../../../../node/exchange/limits.ts'
import { ASK_BURST, ASK_WASTED_PER_UNIT } from '../../../../node/exchange/serve/limits.ts'
import { ExchangeServer } from '../../../../node/exchange/serve/server.ts'
import { digestOf } from '../../../../protocol/digest.ts'
import type { Message } from '../../../../protocol/messages.ts'
import { streamPair } from '../../../fakes/frame-stream-pair.ts'
import { MemoryHolding } from '../../../fakes/memory-holding.ts'
import { codeOf } from '../../../support/error-code.ts'
import { all, facts, makeBlocks } from '../../../support/swarm-net.ts'

describe('ExchangeServer', () => {
  const blocks = makeBlocks(4)
  const holding = new MemoryHolding(blocks, all(4))
  const server = new ExchangeServer({
    local: () => facts('server', [holding]),
    holdings: () => [holding],
    peers: () => [],
  })
  const hello: Message = { type: 'hello', versionMin: 2, versionMax: 2, creditBytes: 1, ...facts('client', []) }

  it('answers busy beyond the credit, and missing for what is not there', async () => {
    const [client, end] = streamPair('client', 'server')
    void server.serve(end).catch(() => undefined)
    await client.send(hello)
    const requests = Array.from({ length: SESSION_CREDIT_BYTES / 4096 + 10 }, (_, id) => ({
      id,
      digest: digestOf(blocks[id % 4]!),
      level: 0,
      index: id % 4,
      size: 4096,
      granules: new Uint8Array(),
    }))
    requests[0]!.digest = Buffer.alloc(32, 9)
    await client.send({ type: 'want', requests, packFrom: 0 })
    const counts: Record<string, number> = {}
    for await (const message of client.messages()) {
      const ids = 'ids' in message ? message.ids.length : 1
      counts[message.type] = (counts[message.type] ?? 0) + ids
      if ((counts.block ?? 0) + (counts.missing ?? 0) + (counts.busy ?? 0) === requests.length) break
    }
    expect(counts).toMatchObject({ busy: 10, missing: 1, block: requests.length - 11, hello: 1 })
  })

  it('does not wait for ever for a client that says nothing', async () => {
    const [, end] = streamPair('client', 'server')
    expect(await codeOf(server.serve(end))).toBe('REQUEST_TIMEOUT')
  })

  it('ends the stream of a client that does not begin with hello, or sends what only servers send', async () => {
    for (const opening of [
      [{ type: 'want', requests: [], packFrom: 0 }],
      [hello, { type: 'missing', ids: [1] }],
    ] as Message[][]) {
      const [client, end] = streamPair('client', 'server')
      const serving = codeOf(server.serve(end))
      for (const message of opening) await client.send(message)
      expect(await serving).toBe('PROTOCOL_VIOLATION')
    }
  })

  it('ends the stream of a client that asks for more than anybody can use, and remembers it', async () => {
    const at = { now: () => 0 }
    const strict = new ExchangeServer({
      local: () => facts('server', [holding]),
      holdings: () => [holding],
      peers: () => [],
      pace: at,
    })
    for (let turn = 0; turn < 2; turn++) {
      const [client, end] = streamPair('client', 'server')
      const serving = codeOf(strict.serve(end))
      await client.send(hello)
      for (let i = 0; i < (turn === 0 ? ASK_BURST : 1); i++) await client.send({ type: 'cancel', ids: [] })
      expect(await serving).toBe('PROTOCOL_VIOLATION')
    }
  })

  it('ends the next stream of a client that leaves its requests behind on each, without calling them back', async () => {
    const strict = new ExchangeServer({
      local: () => facts('server', [holding]),
      holdings: () => [holding],
      peers: () => [],
      pace: { now: () => 0 },
      // It never comes to an answer.
      gate: { waitMs: () => 1_000, spend: () => undefined, sent: () => undefined },
    })
    const count = SESSION_CREDIT_BYTES / 4096
    const digest = digestOf(blocks[0]!)
    const requests = Array.from({ length: count }, (_, id) => {
      return { id, digest, level: 0, index: 0, size: 4096, granules: new Uint8Array() }
    })
    // What the last one owes is noticed by the one after it.
    const most = Math.ceil((ASK_BURST * ASK_WASTED_PER_UNIT) / count) + 1
    let streams = 0
    for (let code: string | undefined; code !== 'PROTOCOL_VIOLATION'; streams++) {
      expect(streams).toBeLessThanOrEqual(most)
      const [client, end] = streamPair('client', 'server')
      const serving = codeOf(strict.serve(end))
      await client.send(hello)
      await client.send({ type: 'want', requests, packFrom: 0 })
      await client.close()
      code = await serving
    }
    expect(streams).toBeGreaterThan(most / 2)
    strict.close()
  })
})
