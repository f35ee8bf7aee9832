import { describe, expect, it } from 'vitest'
import {
  MAX_WAITING,
  MAX_WAITING_BYTES,
  MAX_WAITING_PER_ADDRESS,
  WAITING_FORGOTTEN_MS,
} from '../../../../node/agent/mesh/limits.ts'
import { WaitingRoom } from '../../../../node/agent/mesh/waiting-room.ts'
import { MAX_FACT_BYTES, MAX_MAC_ADDRESSES, MAX_TOLD_DISKS } from '../../../../protocol/constants.ts'
import { keyCode } from '../../../../protocol/key-code.ts'
import { factsOf } from '../../../support/machine-facts.ts'

describe('WaitingRoom', () => {
  it('remembers since when a machine waits, and forgets one that asks no more', () => {
    let ticks = 0
    let now = 1000
    const room = new WaitingRoom({ now: () => now, ticks: () => ticks })
    expect(room.heard('a', factsOf('pc1'), '10.0.0.1')).toBe(true)
    now = 2000
    ticks = WAITING_FORGOTTEN_MS - 1
    room.heard('b', factsOf('pc2'), '10.0.0.2')
    room.heard('a', factsOf('pc1b'), '10.0.0.3')
    expect(room.all()).toMatchObject([
      { id: 'a', code: keyCode('a'), since: 1000, asked: 2000, address: '10.0.0.3', facts: { name: 'pc1b' } },
      { id: 'b', since: 2000 },
    ])
    ticks += WAITING_FORGOTTEN_MS
    expect(room.all()).toHaveLength(2)
    ticks += 1
    expect(room.all()).toEqual([])
    room.heard('a', factsOf('pc1'), '10.0.0.1')
    room.forget('a')
    expect(room.all()).toEqual([])
  })

  it('is bounded: in all, from one address, and in bytes', () => {
    const room = new WaitingRoom()
    let id = 0
    const fill = (address: string): number => {
      for (let taken = 0; ; taken++) if (!room.heard(`id-${id++}`, factsOf('pc1'), address)) return taken
    }
    expect(fill('10.0.0.1')).toBe(MAX_WAITING_PER_ADDRESS)
    // One that has its place keeps it.
    expect(room.heard('id-0', factsOf('pc1'), '10.0.0.1')).toBe(true)
    let all = MAX_WAITING_PER_ADDRESS
    for (let host = 2; host < 20; host++) all += fill(`10.0.0.${host}`)
    expect(all).toBe(MAX_WAITING)

    const wordy = new WaitingRoom()
    const long = 'x'.repeat(MAX_FACT_BYTES)
    const disk = { name: long, size: Number.MAX_SAFE_INTEGER, model: long }
    const facts = {
      ...{ name: 'pc1', mac: Array<string>(MAX_MAC_ADDRESSES).fill(long), model: long, serial: long },
      ...{ memory: 1, disks: Array(MAX_TOLD_DISKS).fill(disk), disk: long, holds: long },
    }
    let bytes = 0
    for (let i = 0; wordy.heard(`id-${i}`, facts, `10.0.${i}.1`); i++) bytes += Buffer.byteLength(JSON.stringify(facts))
    expect(bytes).toBeLessThanOrEqual(MAX_WAITING_BYTES)
    expect(wordy.all().length).toBeGreaterThan(MAX_WAITING / 4)
    expect(wordy.all().length).toBeLessThan(MAX_WAITING)
  })
})
