import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { Machine } from '../../../../node/agent/machine/machine.ts'
import { Conduct } from '../../../../node/agent/mesh/conduct.ts'
import { KEEP_CONDUCT_MS } from '../../../../node/agent/mesh/limits.ts'
import { PeerLedger } from '../../../../node/exchange/peer-ledger.ts'
import { StateDirectory } from '../../../../node/state/state-directory.ts'
import { isRecord } from '../../../../protocol/json-shape.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

describe('how members behave', () => {
  it('is stored every minute, as far as it has changed, and is there after the process was killed', async () => {
    const state = await StateDirectory.open(join(await temporaryDirectory(), 'state'), { create: true })
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    onTestFinished(async () => {
      vi.useRealTimers()
      await state.close()
    })
    const machine = { state, isMember: (id: string) => id !== 'stranger', nameOf: (id: string) => id } as Machine
    const make = (ledger: PeerLedger): Conduct =>
      new Conduct({ machine, ledger, clients: () => [], connectionsTo: () => 0, report: () => undefined })
    const stored = state.shelf('conduct', { name: 'all', shape: isRecord, fault: 'STATE_CORRUPT' })
    const ledger = new PeerLedger()
    const conduct = make(ledger)
    await conduct.recall()
    ledger.ban('pc1', 'violation', 'broke the protocol')
    ledger.count('stranger', 'busy')
    vi.advanceTimersByTime(KEEP_CONDUCT_MS - 1)
    expect(await stored.keys()).toEqual([])
    vi.advanceTimersByTime(1)
    await vi.waitFor(async () => expect(await stored.keys()).toEqual(['pc1']))
    // Nothing is new.
    await stored.del('pc1')
    vi.advanceTimersByTime(10 * KEEP_CONDUCT_MS)
    expect(await stored.keys()).toEqual([])
    ledger.count('pc1', 'slow')
    vi.advanceTimersByTime(KEEP_CONDUCT_MS)
    await vi.waitFor(async () => expect(await stored.get('pc1')).toMatchObject({ offences: 2, bans: 1 }))
    // No end: the process was killed.
    const next = new PeerLedger()
    await make(next).recall()
    expect(next.isRefused('pc1')).toBe(true)
    await conduct.remember()
    vi.advanceTimersByTime(KEEP_CONDUCT_MS)
    expect(vi.getTimerCount()).toBe(1)
  })
})
