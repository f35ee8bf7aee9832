import { describe, expect, it } from 'vitest'
import { BAN_MS, LEDGER_MS } from '../../../node/exchange/limits.ts'
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
})
