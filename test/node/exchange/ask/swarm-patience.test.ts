import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { isMeshError } from '../../../../protocol/errors.ts'
import { MemoryHolding } from '../../../fakes/memory-holding.ts'
import { all, fetchAll, makeBlocks, Net } from '../../../support/swarm-net.ts'

describe('the patience of a fetch', () => {
  const net = new Net()
  afterEach(() => net.close())

  /** Resolves when `isTrue`. */
  async function until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) await sleep(5)
  }

  it('lasts as long as the network may still come, and then says what is wrong with it', async () => {
    let looks = 0
    let comes = true
    const isComing = (): boolean => {
      looks++
      return comes
    }
    const fault = (): string => 'network card eth0 has no link'
    const swarm = net.swarm('me', { deadlines: { peerWaitMs: 0 }, network: { isComing, fault } })
    const fetching = fetchAll(swarm, new MemoryHolding(makeBlocks(3), [])).catch((error: unknown) => error)
    await until(() => looks > 3)
    comes = false
    const error = await fetching
    expect(isMeshError(error, 'PEERS_UNREACHABLE') && error.message).toMatch(
      /in \d+ s: network card eth0 has no link; 3 blocks are missing$/,
    )
  })

  it('begins anew with a peer that came late, until it has said what it holds', async () => {
    const blocks = makeBlocks(3)
    let clock = 0
    let looks = 0
    const isComing = (): boolean => {
      looks++
      return false
    }
    net.serve('late', new MemoryHolding(blocks, all(3)), (message) => (message.type === 'have' ? undefined : message))
    const swarm = net.swarm('me', {
      deadlines: { peerWaitMs: 2_000, holderWaitMs: 500 },
      network: { isComing, fault: () => undefined },
      now: () => clock,
    })
    let ended = false
    const fetching = fetchAll(swarm, new MemoryHolding(blocks, []))
      .catch((error: unknown) => error)
      .finally(() => {
        ended = true
      })
    clock = 1_900
    swarm.addPeer('late')
    await until(() => swarm.peers().length === 1)
    const before = looks
    await until(() => looks > before + 2 || ended)
    expect(ended).toBe(false)
    clock += 500
    expect(isMeshError(await fetching, 'BLOCKS_UNAVAILABLE')).toBe(true)
  })
})
