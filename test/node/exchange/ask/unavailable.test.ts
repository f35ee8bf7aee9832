import { describe, expect, it } from 'vitest'
import { HOLDER_WAIT_MS, NO_DELIVERY_MS, PEER_WAIT_MS } from '../../../../node/exchange/ask/limits.ts'
import { type SupplyFacts, whyUnavailable } from '../../../../node/exchange/ask/unavailable.ts'

/** Why a fetch gives up that lacks 20 blocks; the same question twice has the same answer. */
function why(times: { dryMs?: number; helplessMs?: number }, facts: Partial<SupplyFacts> = {}) {
  const ask = () =>
    whyUnavailable(
      { level: 0, missing: 20, indices: Array(20).keys(), dryMs: times.dryMs, helplessMs: times.helplessMs },
      { peers: 3, ...facts },
    )
  expect(ask()?.message).toEqual(ask()?.message)
  return ask()
}

describe('whyUnavailable', () => {
  it('lets a fetch go on that somebody can help, however long it takes', () => {
    expect(why({})).toBeUndefined()
    expect(why({ dryMs: NO_DELIVERY_MS - 1 })).toBeUndefined()
    expect(why({ helplessMs: HOLDER_WAIT_MS - 1 })).toBeUndefined()
    expect(why({ helplessMs: PEER_WAIT_MS - 1 }, { peers: 0 })).toBeUndefined()
  })

  it('says whether nobody came, nobody holds what is missing, or nobody delivers it', () => {
    expect(why({ helplessMs: PEER_WAIT_MS }, { peers: 0 })?.code).toBe('PEERS_UNREACHABLE')
    expect(why({ helplessMs: HOLDER_WAIT_MS })?.message).toMatch(
      /^none of 3 reachable machines holds blocks 0, 1, .* and 4 more$/,
    )
    expect(why({ dryMs: NO_DELIVERY_MS })?.message).toMatch(/^none of 3 reachable machines delivers blocks/)
    expect(why({ helplessMs: 5 }, { holderWaitMs: 5, because: 'the uplink is closed' })?.message).toMatch(
      /; the uplink is closed$/,
    )
  })
})
