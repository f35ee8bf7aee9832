import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import {
  MAX_STRANGER_CONNECTIONS,
  MAX_STRANGERS,
  MAX_STRANGERS_PER_ADDRESS,
  STRANGER_MS,
} from '../../../../node/agent/mesh/limits.ts'
import { Strangers } from '../../../../node/agent/mesh/strangers.ts'

describe('Strangers', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  it('are few, few of one address, and are sent away after a while unless they became members', () => {
    const members = new Set<string>(['member'])
    const sent: string[] = []
    const strangers = new Strangers({
      isStranger: (id) => !members.has(id),
      disconnect: (id) => {
        sent.push(id)
      },
    })
    strangers.connected('member', '10.0.0.9')
    for (let i = 0; i <= MAX_STRANGERS_PER_ADDRESS; i++) strangers.connected(`a${i}`, '10.0.0.1')
    expect(sent).toEqual([`a${MAX_STRANGERS_PER_ADDRESS}`])
    for (let i = 0; strangers.hasRoom; i++) strangers.connected(`b${i}`, `10.0.1.${i}`)
    strangers.gone('a1')
    expect(strangers.hasRoom).toBe(true)
    members.add('a0')
    vi.advanceTimersByTime(STRANGER_MS)
    expect(sent).not.toContain('a0')
    expect(sent).not.toContain('member')
    // All but a0, which became a member, and a1, which has gone; and the one that found no room.
    expect(sent).toHaveLength(MAX_STRANGERS - 2 + 1)
    sent.length = 0
    strangers.connection('b0', MAX_STRANGER_CONNECTIONS)
    strangers.connection('member', MAX_STRANGER_CONNECTIONS + 1)
    strangers.connection('b0', MAX_STRANGER_CONNECTIONS + 1)
    expect(sent).toEqual(['b0'])
    strangers.stop()
  })
})
