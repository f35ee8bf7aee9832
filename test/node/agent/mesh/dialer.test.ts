import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { Dialer } from '../../../../node/agent/mesh/dialer.ts'
import { MAX_PARALLEL_DIALS } from '../../../../node/agent/mesh/limits.ts'

const FAR = 1

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
})
