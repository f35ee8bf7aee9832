import { describe, expect, it } from 'vitest'
import { giveAddress } from '../../../../node/agent/boot/agent-network.ts'

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn('SKIPPED: an address that is there already; this needs root')

describe('the network of the agent', () => {
  it('tells of a card that cannot be given its address', async () => {
    const told: unknown[] = []
    await giveAddress('no-card', { address: '192.0.2.9/24', gateway: undefined }, (event) => told.push(event))
    expect(told).toEqual([
      { type: 'warning', text: expect.stringMatching(/^no-card does not get 192\.0\.2\.9\/24: ip /) },
    ])
  })

  it.skipIf(!isRoot)('says nothing of an address that is there already', async () => {
    const told: unknown[] = []
    await giveAddress('lo', { address: '127.0.0.1/8', gateway: undefined }, (event) => told.push(event))
    expect(told).toEqual([])
  })
})
