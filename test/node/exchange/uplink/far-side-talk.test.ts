import { afterEach, describe, expect, it, vi } from 'vitest'
import { type FarFetch, FarSide, type FetchingMessage } from '../../../../node/exchange/uplink/far-side.ts'
import {
  CLAIM_DELAY_MS,
  CLAIM_KEEP_MS,
  FAR_QUIET_MS,
  FETCHING_SILENT_MS,
} from '../../../../node/exchange/uplink/limits.ts'
import { RangeSet } from '../../../../protocol/ranges.ts'

const ROOT = Buffer.alloc(32, 7)

/** A fetch that writes down what it is told. */
class FakeFetch implements FarFetch {
  readonly peers = new Set<string>()
  readonly told: string[] = []

  hasPeer(peerId: string): boolean {
    return this.peers.has(peerId)
  }

  setFetchesFromFar(peerId: string, fetches: boolean): void {
    this.told.push(`${peerId} ${fetches ? 'fetches' : 'fetches not'}`)
  }

  setClaims(peerId: string, claimed: RangeSet): void {
    this.told.push(`${peerId} claims ${[...claimed.values()]}`)
  }

  leaveToOthers(index: number): void {
    this.told.push(`leave ${index}`)
  }

  /** What was told since the last call. */
  news(): string[] {
    return this.told.splice(0)
  }
}

/** The far side of the machine `m`, with the peers `central` behind the uplink, and `a` and `z` near. */
function makeSide() {
  const time = { now: 0 }
  const sent: { to: string; message: FetchingMessage }[] = []
  const sessions = ['central', 'a', 'z'].map((peerId) => ({
    peerId,
    held: () => undefined,
    tellFetching: (message: FetchingMessage) => sent.push({ to: peerId, message }),
  }))
  const side = new FarSide({
    self: 'm',
    isFar: (peerId) => peerId === 'central',
    nearSettled: () => true,
    sessions: () => sessions,
    now: () => time.now,
  })
  const hears = (peerId: string, claimed: readonly number[], over = false): void =>
    side.heard(peerId, {
      type: 'fetching',
      root: ROOT,
      level: 0,
      claimed: RangeSet.from(claimed.map((index) => [index, index + 1])),
      over,
    })
  const said = (): string[] =>
    sent.splice(0).map(({ to, message: { claimed, over } }) => `${to} ${over ? 'over' : [...claimed.values()]}`)
  return { side, time, hears, said }
}

describe('FarSide', () => {
  afterEach(() => {
    vi.useRealTimers()
  })

  it('tells the near peers, and only those, what a fetch with a far peer asks for there', () => {
    vi.useFakeTimers()
    const { side, time, said } = makeSide()
    const fetch = new FakeFetch()
    side.begin(fetch, { root: ROOT, level: 0 })
    side.noticed(fetch)
    expect(said()).toEqual([])
    fetch.peers.add('central')
    side.noticed(fetch)
    expect(said()).toEqual(['a ', 'z '])
    for (const index of [3, 4, 5]) side.asked(fetch, index)
    side.returned(fetch, 4)
    side.came(fetch, 5)
    side.came(fetch, 9)
    expect(said()).toEqual([])
    vi.advanceTimersByTime(CLAIM_DELAY_MS)
    expect(said()).toEqual(['a 3,5', 'z 3,5'])
    // What came long ago is known as held; what is on its way is still claimed.
    time.now = CLAIM_KEEP_MS + 1
    side.tick()
    expect(said()).toEqual(['a 3', 'z 3'])
    side.close()
  })

  it('tells a fetch what fellows claim, and leaves to a lesser id what both have asked for', () => {
    const { side, hears } = makeSide()
    const fetch = new FakeFetch()
    side.begin(fetch, { root: ROOT, level: 0 })
    for (const index of [1, 2, 3]) side.asked(fetch, index)
    side.came(fetch, 2)
    hears('z', [1])
    expect(fetch.news()).toEqual(['z fetches', 'z claims 1'])
    hears('a', [2, 3, 8])
    expect(fetch.news()).toEqual(['a fetches', 'a claims 2,3,8', 'leave 3'])
    hears('central', [1])
    expect(fetch.news()).toEqual([])
    side.close()
  })

  it('forgets fellows that say that they are done, go, or are silent', () => {
    const { side, time, hears } = makeSide()
    const fetch = new FakeFetch()
    side.begin(fetch, { root: ROOT, level: 0 })
    for (const peerId of ['a', 'z', 'b']) hears(peerId, [])
    fetch.news()
    hears('a', [], true)
    expect(fetch.news()).toEqual(['a fetches not'])
    side.gone('z')
    expect(fetch.news()).toEqual(['z fetches not'])
    time.now = FETCHING_SILENT_MS - 1
    side.tick()
    expect(fetch.news()).toEqual([])
    time.now = FETCHING_SILENT_MS
    side.tick()
    expect(fetch.news()).toEqual(['b fetches not'])
    side.close()
  })

  it('lets far peers be asked when nobody near was met for a moment', () => {
    const { side, time } = makeSide()
    const fetch = new FakeFetch()
    fetch.peers.add('central')
    side.begin(fetch, { root: ROOT, level: 0 })
    expect(side.mayAsk()).toBe(false)
    side.noticed(fetch)
    time.now = FAR_QUIET_MS - 1
    expect(side.mayAsk()).toBe(false)
    side.met({ peerId: 'a', held: () => undefined, tellFetching: () => undefined })
    time.now += FAR_QUIET_MS - 1
    expect(side.mayAsk()).toBe(false)
    time.now++
    expect(side.mayAsk()).toBe(true)
    side.close()
  })
})
