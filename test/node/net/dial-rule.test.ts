import { describe, expect, it } from 'vitest'
import { type DialFacts, dialRank, dialRoom } from '../../../node/net/dial-rule.ts'
import { DIAL_STEP_MS, DIAL_STEP_PEERS, FAR_PEERS } from '../../../node/net/limits.ts'

const IDLE: DialFacts = { directs: false, starves: false, needsFar: false, connected: 0, connectedFar: 0 }
const ALL = Number.POSITIVE_INFINITY
const NEAR = dialRank({ near: true, isMaster: false })
const MASTER = dialRank({ near: false, isMaster: true })
const FAR = dialRank({ near: false, isMaster: false })

describe('who is dialled', () => {
  it('is first who is near, then a master elsewhere', () => {
    expect(NEAR).toBeLessThan(MASTER)
    expect(MASTER).toBeLessThan(FAR)
    expect(dialRank({ near: true, isMaster: true })).toBe(NEAR)
  })

  it('is everybody near, and a few elsewhere however many there are', () => {
    expect(dialRoom(NEAR, { ...IDLE, connected: 500 })).toBe(ALL)
    expect(dialRoom(FAR, IDLE)).toBe(FAR_PEERS)
    const full = { ...IDLE, connected: 60, connectedFar: FAR_PEERS }
    expect(dialRoom(FAR, full)).toBe(0)
    expect(dialRoom(MASTER, full)).toBe(ALL)
  })

  it('is everybody anywhere if nobody who is connected has what is needed', () => {
    const starving = { ...IDLE, starves: true, connected: 900, connectedFar: 900 }
    for (const restoringMs of [undefined, 0]) expect(dialRoom(FAR, { ...starving, restoringMs })).toBe(ALL)
  })

  it('is everybody anywhere for those who give orders', () => {
    expect(dialRoom(FAR, { ...IDLE, directs: true, connected: 900, connectedFar: 900 })).toBe(ALL)
    expect(dialRoom(FAR, { ...IDLE, directs: true, restoringMs: 0 })).toBe(0)
  })

  it('is for a restore a few near at first, more as time passes, and nobody elsewhere without need', () => {
    const restoring = { ...IDLE, restoringMs: 0 }
    expect(dialRoom(NEAR, restoring)).toBe(DIAL_STEP_PEERS)
    expect(dialRoom(NEAR, { ...restoring, connected: DIAL_STEP_PEERS })).toBe(0)
    expect(dialRoom(NEAR, { ...restoring, restoringMs: DIAL_STEP_MS, connected: DIAL_STEP_PEERS })).toBe(
      DIAL_STEP_PEERS,
    )
    for (const rank of [MASTER, FAR]) expect(dialRoom(rank, restoring)).toBe(0)
    expect(dialRoom(NEAR, { ...restoring, needsFar: true, connected: 50 })).toBe(ALL)
    expect(dialRoom(FAR, { ...restoring, needsFar: true })).toBe(FAR_PEERS)
  })
})
