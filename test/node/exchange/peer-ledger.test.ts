import { describe, expect, it } from 'vitest'
import { BAN_MS, DOUBT_OFFENCES, LEDGER_MS } from '../../../node/exchange/limits.ts'
import { PeerLedger } from '../../../node/exchange/peer-ledger.ts'

describe('the ledger of peers', () => {
  it('bans for a time, and each further time for twice as long, up to a day', () => {
    let now = 0
    const ledger = new PeerLedger(() => now)
    for (const ms of [BAN_MS, 2 * BAN_MS, 4 * BAN_MS]) {
      expect(ledger.ban('liar', 'wrong', 'sent wrong bytes')).toBe(now + ms)
      now += ms - 1
      expect(ledger.isBanned('liar')).toBe(true)
      now += 1
      expect(ledger.isBanned('liar')).toBe(false)
    }
    for (let i = 0; i < 10; i++) ledger.ban('liar', 'wrong', 'sent wrong bytes')
    expect(ledger.banned()).toEqual([{ id: 'liar', until: now + LEDGER_MS, reason: 'sent wrong bytes' }])
    expect(ledger.times('liar', 'wrong')).toBe(13)
  })

  it('lets a peer in that sent wrong content, and none that broke the protocol', () => {
    const ledger = new PeerLedger(() => 0)
    ledger.ban('rotten', 'wrong', 'sent wrong bytes')
    ledger.ban('rude', 'violation', 'sent a block to a server')
    expect(['rotten', 'rude', 'good'].map((id) => ledger.isRefused(id))).toEqual([false, true, false])
  })

  it('trusts a peer less that has cost more time than the others, for a day, over restarts', () => {
    let now = 1e12
    const before = new PeerLedger(() => now)
    for (const id of ['fast', 'faster']) before.countDelivered(id, 4096)
    for (let i = 0; i < DOUBT_OFFENCES; i++) {
      expect(before.isDoubtful('lazy')).toBe(false)
      before.count('lazy', 'busy')
    }
    before.ban('rude', 'violation', 'sent a block to a server')
    expect(before.isDoubtful('lazy')).toBe(true)
    expect(before.offenders()).toEqual([
      { id: 'lazy', wrong: 0, violation: 0, silent: 0, slow: 0, busy: DOUBT_OFFENCES },
      { id: 'rude', wrong: 0, violation: 1, silent: 0, slow: 0, busy: 0, reason: 'sent a block to a server' },
    ])
    const restarted = (from: PeerLedger): PeerLedger => {
      const next = new PeerLedger(() => now)
      for (const [id, past] of from.remembered()) next.recall(id, past)
      return next
    }
    const after = restarted(before)
    expect(after.isDoubtful('lazy')).toBe(true)
    expect(after.isRefused('rude')).toBe(true)
    expect(after.offenders()).toEqual([])
    // That it delivers does not keep the memory of what it did before.
    after.countDelivered('lazy', 4096)
    now += LEDGER_MS
    expect(after.isDoubtful('lazy')).toBe(false)
    expect(restarted(after).isDoubtful('lazy')).toBe(false)
  })

  it('trusts nobody less where all are slow', () => {
    const ledger = new PeerLedger(() => 0)
    for (const id of ['a', 'b', 'c']) for (let i = 0; i < 2 * DOUBT_OFFENCES; i++) ledger.count(id, 'slow')
    expect(['a', 'b', 'c'].map((id) => ledger.isDoubtful(id))).toEqual([false, false, false])
  })

  it('trusts a peer less that was silent once', () => {
    const ledger = new PeerLedger(() => 0)
    ledger.count('a', 'silent')
    expect(ledger.isDoubtful('a')).toBe(true)
  })
})
