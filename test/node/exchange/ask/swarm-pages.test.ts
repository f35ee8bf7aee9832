import { afterEach, describe, expect, it } from 'vitest'
import { PAGE_GUESSES } from '../../../../node/exchange/ask/limits.ts'
import { MemoryHolding } from '../../../fakes/memory-holding.ts'
import { all, makeBlocks, Net, never, random, request } from '../../../support/swarm-net.ts'

describe('Swarm, for pages of a tree', () => {
  const net = new Net()
  afterEach(() => net.close())

  const COUNT = 400

  it('asks near peers with other images, and far ones only for what those do not have', async () => {
    const pages = new MemoryHolding(makeBlocks(COUNT), all(COUNT))
    const older = new MemoryHolding(
      pages.blocks.map((page, i) => (i % 10 === 9 ? random.bytes(4096) : page)),
      all(COUNT),
    )
    net.serve('near', older)
    net.serve('far', pages)
    const swarm = net.swarm('me', { places: { isFar: (peerId) => peerId === 'far' } })
    for (const peer of ['near', 'far']) swarm.addPeer(peer)
    const from = new Map<string, number>()
    for await (const { index, data, peerId } of swarm.fetch({ ...request(pages), level: 1 }, never)) {
      expect(Buffer.compare(data, pages.blocks[index]!)).toBe(0)
      from.set(peerId, (from.get(peerId) ?? 0) + 1)
    }
    expect(Object.fromEntries(from)).toEqual({ near: (COUNT * 9) / 10, far: COUNT / 10 })
  })

  it('does not go on asking a peer that has none of them', async () => {
    const pages = new MemoryHolding(makeBlocks(COUNT), all(COUNT))
    let missing = 0
    net.serve('stranger', new MemoryHolding(makeBlocks(COUNT), all(COUNT)), (message) => {
      if (message.type === 'missing') missing += message.ids.length
      return message
    })
    net.serve('holder', pages)
    const swarm = net.swarm('me', { places: { isFar: (peerId) => peerId === 'holder' } })
    for (const peer of ['stranger', 'holder']) swarm.addPeer(peer)
    let got = 0
    for await (const { peerId } of swarm.fetch({ ...request(pages), level: 1 }, never)) {
      expect(peerId).toBe('holder')
      got++
    }
    expect(got).toBe(COUNT)
    expect(missing).toBeGreaterThanOrEqual(PAGE_GUESSES)
    expect(missing).toBeLessThan(COUNT / 2)
  })
})
