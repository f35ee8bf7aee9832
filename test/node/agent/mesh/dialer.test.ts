import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { Dialer } from '../../../../node/agent/mesh/dialer.ts'
import {
  MAX_HEARSAY,
  MAX_PARALLEL_DIALS,
  MEMBER_DIALS_BURST,
  WRONG_ADDRESS_MS,
} from '../../../../node/agent/mesh/limits.ts'
import { MeshError } from '../../../../protocol/errors.ts'

const FAR = 1

async function* nothing(): AsyncGenerator<never> {
  // No addresses of earlier runs.
}

/** A dialer of machines whose dials never end; whom it has dialled. */
async function dialled(names: readonly string[], room: (rank: number) => number): Promise<string[]> {
  const begun: string[] = []
  const dialer = new Dialer({
    shelf: {
      put: async () => undefined,
      async *iterator() {
        for (const name of names) yield [name, ['/ip4/127.0.0.1/tcp/1']]
      },
    },
    connect: (peerId) => {
      begun.push(peerId)
      return new Promise(() => undefined)
    },
    isWanted: () => true,
    rank: (peerId) => (peerId.startsWith('far') ? FAR : 0),
    room,
  })
  await dialer.start()
  dialer.look()
  await sleep(1)
  dialer.stop()
  return begun
}

describe('Dialer', () => {
  it('dials each once, those of a low rank first, as many as there is room for', async () => {
    const names = ['far1', 'far2', 'far3', 'near1', 'near2']
    const begun = await dialled(names, (rank) => (rank === FAR ? 2 : 10))
    expect(begun.slice(0, 2).sort()).toEqual(['near1', 'near2'])
    expect(begun.slice(2).every((name) => name.startsWith('far'))).toBe(true)
    expect(begun).toHaveLength(4)
  })

  it('does not keep far machines waiting for near ones that are off', async () => {
    const near = Array.from({ length: 8 }, (_, i) => `near${i}`)
    const begun = await dialled([...near, 'far1', 'far2'], (rank) => (rank === FAR ? 2 : Number.POSITIVE_INFINITY))
    expect(begun).toEqual(expect.arrayContaining(['far1', 'far2']))
  })

  it('has a bound of its own', async () => {
    const begun = await dialled(
      Array.from({ length: 50 }, (_, i) => `near${i}`),
      () => Number.POSITIVE_INFINITY,
    )
    expect(begun).toHaveLength(MAX_PARALLEL_DIALS)
  })

  it('begins with the address that worked last, and drops one where somebody else answered', async () => {
    const kept = new Map<string, readonly string[]>()
    const dials: { addresses: readonly string[]; worked: string | undefined }[] = []
    let now = 0
    const dialer = new Dialer({
      shelf: {
        put: async (peerId, addresses) => void kept.set(peerId, addresses),
        iterator: nothing,
      },
      connect: async (_peerId, addresses, worked) => {
        dials.push({ addresses, worked })
        if (dials.length > 1) throw new MeshError('PEERS_UNREACHABLE', 'off', { detail: { wrong: ['172.18'] } })
        return { address: 'works', wrong: ['172.17'] }
      },
      isWanted: () => true,
      rank: () => 0,
      room: () => Number.POSITIVE_INFINITY,
      now: () => now,
    })
    await dialer.start()
    dialer.learn('pc1', ['172.17', 'dead', 'works'])
    await sleep(1)
    expect(kept.get('pc1')).toEqual(['works', 'dead'])
    // Whoever tells of a wrong address again is not believed for a while.
    dialer.learn('pc1', ['172.17', '172.18', 'works'])
    await sleep(1)
    expect(dials.at(-1)).toEqual({ addresses: ['172.18', 'works', 'dead'], worked: 'works' })
    expect(kept.get('pc1')).toEqual(['works', 'dead'])
    now += WRONG_ADDRESS_MS
    dialer.learn('pc1', ['172.17'])
    await sleep(1)
    expect(dials.at(-1)?.addresses).toEqual(['172.17', 'works', 'dead'])
    dialer.stop()
  })

  it('dials anew only for an address that it does not know', async () => {
    let dials = 0
    const dialer = new Dialer({
      shelf: { put: async () => undefined, iterator: nothing },
      connect: async () => {
        dials++
        throw new MeshError('PEERS_UNREACHABLE', 'off')
      },
      isWanted: () => true,
      rank: () => 0,
      room: () => Number.POSITIVE_INFINITY,
      now: () => 0,
    })
    await dialer.start()
    for (const addresses of [['a', 'b'], ['b', 'a'], ['b']]) {
      dialer.learn('pc1', addresses)
      await sleep(1)
    }
    expect(dials).toBe(1)
    dialer.learn('pc1', ['c'])
    await sleep(1)
    expect(dials).toBe(2)
    dialer.stop()
  })

  it('dials what others tell of last, writes it down once it has worked, and bounds the dials of a member', async () => {
    const kept = new Map<string, readonly string[]>()
    const dials: (readonly string[])[] = []
    let now = 0
    const dialer = new Dialer({
      shelf: { put: async (peerId, addresses) => void kept.set(peerId, addresses), iterator: nothing },
      connect: async (_peerId, addresses) => {
        dials.push(addresses)
        if (addresses.includes('right')) return { address: 'right', wrong: [] }
        throw new MeshError('PEERS_UNREACHABLE', 'off')
      },
      isWanted: () => true,
      rank: () => 0,
      room: () => Number.POSITIVE_INFINITY,
      now: () => now,
    })
    await dialer.start()
    dialer.learn('pc1', ['own'])
    await sleep(1)
    for (let i = 0; i < 1000; i++) {
      dialer.hear('pc1', [`made up ${i}`])
      await Promise.resolve()
    }
    await sleep(1)
    expect(dials.at(-1)?.[0]).toBe('own')
    expect(Math.max(...dials.map(({ length }) => length))).toBeLessThanOrEqual(1 + MAX_HEARSAY)
    expect(dials.flat().length).toBeLessThanOrEqual(MEMBER_DIALS_BURST)
    expect(kept.get('pc1')).toEqual(['own'])
    now += 60_000
    dialer.hear('pc1', ['right'])
    await sleep(1)
    expect(kept.get('pc1')).toEqual(['right', 'own'])
    // A state directory with more could not be read.
    dialer.learn(
      'pc1',
      Array.from({ length: 16 }, (_, i) => `own ${i}`),
    )
    dialer.hear('pc1', ['right'])
    await sleep(1)
    expect(kept.get('pc1')).toHaveLength(16)
    dialer.stop()
  })
})
