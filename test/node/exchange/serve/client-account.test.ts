import { describe, expect, it } from 'vitest'
import { SESSION_CREDIT_BYTES } from '../../../../node/exchange/limits.ts'
import { ClientAccount } from '../../../../node/exchange/serve/client-account.ts'
import {
  ASK_BURST,
  ASK_IDS_PER_UNIT,
  ASK_PER_SECOND,
  ASK_WASTED_PER_UNIT,
  FIND_DIGESTS_PER_UNIT,
} from '../../../../node/exchange/serve/limits.ts'
import type { Message } from '../../../../protocol/messages.ts'

describe('the account of a client', () => {
  const cancel: Message = { type: 'cancel', ids: [] }

  it('bounds what is open over all streams', () => {
    const account = new ClientAccount(0)
    account.openBytes = SESSION_CREDIT_BYTES - 10
    expect(account.hasCredit(10)).toBe(true)
    expect(account.hasCredit(11)).toBe(false)
  })

  it('lets a client do so much for nothing at once, and so much a second', () => {
    const account = new ClientAccount(0)
    for (let i = 0; i < ASK_BURST; i++) expect(account.take(cancel, 0)).toBe(true)
    expect(account.take(cancel, 0)).toBe(false)
    expect(account.take(cancel, 2_000)).toBe(true)
    expect(account.refuse((2 * ASK_PER_SECOND - 3) * ASK_IDS_PER_UNIT, 0, 2_000)).toBe(true)
    expect(account.refuse(2 * ASK_WASTED_PER_UNIT, 2 * ASK_WASTED_PER_UNIT, 2_000)).toBe(false)
  })

  it('counts each request that is called back, or is left when its stream ends, though no message says so', () => {
    const account = new ClientAccount(0)
    const ids = Array.from({ length: (ASK_BURST / 2 - 1) * ASK_WASTED_PER_UNIT }, (_, i) => i)
    expect(account.take({ type: 'cancel', ids }, 0)).toBe(true)
    account.abandon((ASK_BURST / 2) * ASK_WASTED_PER_UNIT, 0)
    expect(account.take(cancel, 0)).toBe(false)
    expect(account.take(cancel, 1_000)).toBe(true)
  })

  it('lets requests that are answered cost nothing', () => {
    const account = new ClientAccount(0)
    const want: Message = {
      type: 'want',
      requests: [{ id: 1, digest: Buffer.alloc(32), level: 0, index: 0, size: 4096, granules: new Uint8Array() }],
      packFrom: 0,
    }
    for (let i = 0; i < 2 * ASK_BURST; i++) expect(account.take(want, 0)).toBe(true)
    expect(account.messagesPerSecond(0)).toBeGreaterThan(ASK_BURST / 10)
  })

  it('lets searches wait, and refuses none', () => {
    const account = new ClientAccount(0)
    expect(account.search(ASK_BURST * FIND_DIGESTS_PER_UNIT, 0)).toBe(0)
    expect(account.search(ASK_PER_SECOND * FIND_DIGESTS_PER_UNIT, 0)).toBe(1_000)
  })
})
