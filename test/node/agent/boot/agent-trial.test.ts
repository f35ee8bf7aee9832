import { describe, expect, it } from 'vitest'
import { judgeTrial, type KeptAgent } from '../../../../node/agent/boot/agent-trial.ts'
import { AGENT_TRIES } from '../../../../node/agent/boot/limits.ts'
import type { AgentSlot } from '../../../../protocol/agent-slots.ts'

const OLD: KeptAgent = { slot: 'a', release: 1, root: 'aa', image: 'agent' }
const TRIED: KeptAgent = { ...OLD, tried: { slot: 'b', release: 2, root: 'bb' } }
const MOST_STARTS = 20

/** What a power cut leaves: the file of the state, and what the firmware does next. UEFI: entry first in the order and BootNext. BIOS: the sector of the choice. */
interface Durable {
  json: KeptAgent
  slot: AgentSlot
  once: AgentSlot | undefined
}

/** Power that is cut after so many durable writes of one start. */
class Power {
  left: number
  constructor(writes: number) {
    this.left = writes
  }
  write(work: () => void): void {
    if (this.left-- <= 0) throw new Error('cut')
    work()
  }
}

/** One start: the firmware, UEFI's or GRUB, takes its order for one start back before it obeys; then the agent judges, in the order of `keep-agent.ts`. */
function start(disk: Durable, power: Power, isBroken: boolean): AgentSlot {
  const current = disk.once ?? disk.slot
  disk.once = undefined
  if (current === 'b' && isBroken) return current
  const { tried } = disk.json
  if (tried === undefined) return current
  try {
    const { became, kept } = judgeTrial({ ...disk.json, tried }, current, 'bb')
    if (became === 'kept') power.write(() => (disk.slot = tried.slot))
    power.write(() => (disk.json = kept))
    if (became === 'again') power.write(() => (disk.once = tried.slot))
  } catch {
    // The plug.
  }
  return current
}

describe('a new agent that is tried', () => {
  it.each([0, 1, 2])('is kept, although the power was cut in its first start after %i writes', (writes) => {
    const disk: Durable = { json: TRIED, slot: 'a', once: 'b' }
    expect(start(disk, new Power(writes), false)).toBe('b')
    for (let n = 0; n < AGENT_TRIES && disk.json.slot === 'a'; n++) start(disk, new Power(9), false)
    expect(disk).toEqual({ json: { slot: 'b', release: 2, root: 'bb', image: 'agent' }, slot: 'b', once: undefined })
  })

  it.each([9, 0, 1, 2])(
    'is left alone after some tries if it never starts; power is cut after %i writes at first',
    (writes) => {
      const disk: Durable = { json: TRIED, slot: 'a', once: 'b' }
      let tries = 0
      for (let n = 0; n < MOST_STARTS; n++) if (start(disk, new Power(n < 4 ? writes : 9), true) === 'b') tries++
      expect(tries).toBeGreaterThan(0)
      expect(tries).toBeLessThanOrEqual(AGENT_TRIES)
      if (writes === 9) expect(tries).toBe(AGENT_TRIES)
      expect(disk).toEqual({ json: { ...OLD, failed: 'bb' }, slot: 'a', once: undefined })
    },
  )

  it('counts before the firmware is told, so that a power cut at that moment is no try for ever', () => {
    const disk: Durable = { json: TRIED, slot: 'a', once: undefined }
    for (let n = 0; n < AGENT_TRIES - 1; n++) start(disk, new Power(1), true)
    expect(disk.json.tried?.starts).toBe(AGENT_TRIES)
    start(disk, new Power(9), true)
    expect(disk.json).toEqual({ ...OLD, failed: 'bb' })
  })

  it('is not tried again if the site wants another one, and not judged by a start from elsewhere', () => {
    const { tried } = TRIED
    expect(judgeTrial({ ...OLD, tried: tried! }, 'a', 'cc')).toEqual({ became: 'dropped', kept: OLD })
    expect(judgeTrial({ ...OLD, tried: tried! }, undefined, 'bb')).toEqual({ became: 'unknown', kept: TRIED })
  })
})
