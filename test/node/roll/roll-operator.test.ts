import { describe, expect, it } from 'vitest'
import type { Fleet } from '../../../node/roll/fleet.ts'
import type { Roll } from '../../../node/roll/roll.ts'
import { type RollEvent, RollOperator } from '../../../node/roll/roll-operator.ts'
import { newestRoll, type Order, orderRoll } from '../../../node/roll/roll-order.ts'
import { takenOver } from '../../../node/roll/roll-step.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { Random } from '../../../tools/lab/random.ts'
import { codeOf } from '../../support/error-code.ts'
import { testSeed } from '../../support/seed.ts'
import { newRoll, RULES } from './lab-model.ts'
import { ModelLab } from './model-fleet.ts'

const NAMES = ['a', 'b', 'c', 'd', 'e']
const never = new AbortController().signal
const other = { id: 'id-other', name: 'other' }

const immediate = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

function operatorOf(lab: ModelLab, roll: Roll, fleet: Fleet, events: RollEvent[] = []): RollOperator {
  return new RollOperator(roll, {
    fleet,
    now: () => lab.now,
    local: () => new Date(lab.now),
    pause: lab.pause,
    report: (event) => void events.push(event),
  })
}

async function run(lab: ModelLab, roll: Roll, fleet = lab.fleet(), events: RollEvent[] = []): Promise<Roll> {
  const operator = operatorOf(lab, roll, fleet, events)
  await operator.claim()
  return operator.run(never)
}

describe('the operator of a roll', () => {
  it('resets every machine once, says the least holders at each step, and lets go at the end', async () => {
    const lab = new ModelLab(NAMES)
    const events: RollEvent[] = []
    const last = await run(lab, newRoll(NAMES, { state: 'claimed' }), lab.fleet(), events)
    expect(last).toMatchObject({ state: 'done', attended: false })
    expect(last.machines.map(({ turn }) => turn)).toEqual(NAMES.map(() => 'verified'))
    expect(lab.machines.map(({ resets }) => resets)).toEqual([1, 1, 1, 1, 1])
    const holders = events.filter((event) => event.type === 'holders')
    expect(holders.length).toBeGreaterThan(3)
    expect(Math.min(...holders.map(({ least }) => least))).toBe(3)
    for (const { stored } of lab.machines) expect(stored).toEqual(last)
  })

  it('says outside its window until when it waits, and no longer when the window is open', async () => {
    const lab = new ModelLab(NAMES)
    lab.now = new Date(2026, 10, 3, 21, 58, 30).getTime()
    const events: RollEvent[] = []
    const roll = newRoll(NAMES, { state: 'claimed', rules: { ...RULES, window: '22:00-05:00' } })
    const last = await run(lab, roll, lab.fleet(), events)
    const said = events.flatMap((event) => (event.type === 'roll' ? [`${event.state} ${event.why}`] : []))
    const until = formatTime(new Date(2026, 10, 3, 22, 0))
    expect(said).toEqual(['running ', `running outside its window, waits until ${until}`, 'running ', 'done '])
    expect(last).toMatchObject({ state: 'done', why: '' })
  })

  it('goes on wherever it was killed, and resets nobody twice who was seen to be back', async () => {
    const seed = testSeed('killed operators')
    for (let i = 0; i < 40; i++) {
      const random = new Random(seed + i)
      const lab = new ModelLab(NAMES)
      let roll = newRoll(NAMES, { state: 'claimed' })
      let kills = 0
      let fleet = lab.fleet()
      for (let last: Roll | undefined; last?.state !== 'done'; ) {
        lab.before = () => {
          if (kills < 5 && random.next() < 0.15) throw new Error('killed')
        }
        last = await run(lab, roll, fleet).catch((error: Error) => {
          if (error.message !== 'killed') throw error
          kills++
          return undefined
        })
        lab.before = () => undefined
        // Sometimes the same machine goes on, which has a copy of its own; sometimes another.
        if (random.next() < 0.5) fleet = lab.fleet()
        const found = newestRoll(await fleet.rolls('lab'))
        if (found !== undefined) roll = takenOver(found, other, found.epoch + 1, lab.now)
        if (last !== undefined) expect(last.machines.every(({ turn }) => turn === 'verified')).toBe(true)
      }
      for (const { resets } of lab.machines) expect(resets, `seed ${seed + i}`).toBe(1)
    }
  })

  it('is the only one: a second roll is refused, and who was overtaken ends', async () => {
    const lab = new ModelLab(NAMES)
    const first = operatorOf(lab, newRoll(NAMES), lab.fleet())
    await first.claim()
    const second = operatorOf(lab, newRoll(NAMES, { roll: 'roll-2', operatorName: 'other' }), lab.fleet())
    expect(await codeOf(second.claim())).toBe('ROLL_TAKEN')
    let taken: Promise<Roll> | undefined
    lab.onTick = async () => {
      if (lab.now < 3_000 || taken !== undefined) return
      const found = newestRoll(await lab.fleet().rolls('lab'))!
      const over = operatorOf(lab, takenOver(found, other, found.epoch + 1, lab.now), lab.fleet())
      await over.claim()
      taken = over.run(never)
    }
    expect(await codeOf(first.run(never))).toBe('ROLL_SUPERSEDED')
    expect(await taken).toMatchObject({ state: 'done', operatorName: 'other', epoch: 2 })
    for (const { resets } of lab.machines) expect(resets).toBe(1)
  })

  it('gives way to a roll that began at the same time on machines it could not see, once it sees them', async () => {
    const lab = new ModelLab([...NAMES, 'f', 'g', 'h'])
    const names = lab.machines.map(({ id }) => id)
    const isFirst = (id: string): boolean => 'abcd'.includes(id)
    const apart = (): boolean => lab.now < 3_000
    const rules = { ...newRoll([]).rules, holders: 3, wave: 1 }
    const first = operatorOf(
      lab,
      newRoll(names, { rules }),
      lab.fleet((id) => !apart() || isFirst(id)),
    )
    const second = operatorOf(
      lab,
      newRoll(names, { rules, roll: 'roll-2' }),
      lab.fleet((id) => !apart() || !isFirst(id)),
    )
    await Promise.all([first.claim(), second.claim()])
    // Two loops share one clock: each gives the other its turn.
    lab.onTick = immediate
    const [kept, gone] = await Promise.all([first.run(never), codeOf(second.run(never))])
    expect(gone).toBe('ROLL_SUPERSEDED')
    expect(kept).toMatchObject({ roll: 'roll-1', state: 'done' })
    for (const { resets } of lab.machines) expect(resets).toBeGreaterThan(0)
  })

  it('begins and does nothing without most of the machines that are up', async () => {
    const lab = new ModelLab(NAMES)
    const taken = newRoll(NAMES, { roll: 'roll-2', operatorName: 'other', epoch: 5 })
    for (const id of ['a', 'b', 'c']) lab.machine(id).stored = taken
    expect(await codeOf(operatorOf(lab, newRoll(NAMES), lab.fleet()).claim())).toBe('ROLL_TAKEN')
    for (const machine of lab.machines) machine.stored = undefined
    const operator = operatorOf(lab, newRoll(NAMES), lab.fleet())
    await operator.claim()
    // All the same, but of no epoch above: they do not take what they have something newer of.
    for (const id of ['a', 'b', 'c']) lab.machine(id).stored = newRoll(NAMES, { roll: 'roll-2', sequence: 999 })
    const stop = new AbortController()
    lab.onTick = async () => {
      if (lab.now > 20_000) stop.abort()
    }
    await operator.run(stop.signal)
    expect(lab.machines.map(({ resets }) => resets)).toEqual([0, 0, 0, 0, 0])
    expect(
      await codeOf(
        operatorOf(
          lab,
          newRoll(NAMES),
          lab.fleet(() => false),
        ).claim(),
      ),
    ).toBe('PEERS_UNREACHABLE')
  })

  it('hears what people want on another machine, and says that it heard', async () => {
    const lab = new ModelLab(NAMES)
    const given: string[] = []
    const give = async (order: Order): Promise<void> => {
      const options = { fleet: lab.fleet(), group: 'lab', by: 'office', now: () => lab.now, wait: true }
      const { heard, roll } = await orderRoll(order, { ...options, pause: immediate })
      given.push(`${order} ${heard} ${roll.state}`)
    }
    const orders: [number, Order][] = [
      [2_000, 'pause'],
      [60_000, 'resume'],
      [70_000, 'abort'],
    ]
    let running: Promise<void> | undefined
    lab.onTick = async () => {
      const [next] = orders
      // The operator goes on while people wait for its answer.
      if (next !== undefined && lab.now >= next[0]) {
        orders.shift()
        running = give(next[1])
      }
      await immediate()
    }
    const events: RollEvent[] = []
    const last = await run(lab, newRoll(NAMES, { rules: { ...newRoll([]).rules, wave: 1 } }), lab.fleet(), events)
    await running
    expect(given).toEqual(['pause true paused', 'resume true running', expect.stringMatching(/^abort true abort/)])
    expect(last.state).toBe('aborted')
    const states = events.flatMap((event) => (event.type === 'roll' ? [`${event.state} ${event.why}`] : []))
    expect(states).toEqual([
      'running ',
      'paused by office',
      'running by office',
      'aborting by office',
      'aborted by office',
    ])
    expect(lab.machines.filter(({ resets }) => resets > 0).length).toBeLessThan(4)
    expect(await codeOf(give('pause'))).toBe('ROLL_UNKNOWN')
  })

  it('leaves an order to whoever goes on if nobody is at the roll', async () => {
    const lab = new ModelLab(NAMES)
    const fleet = lab.fleet()
    await operatorOf(lab, newRoll(NAMES), fleet).claim()
    await fleet.store({ ...newRoll(NAMES), sequence: 7 })
    const options = { fleet, group: 'lab', by: 'office', now: () => lab.now, pause: lab.pause, wait: true }
    expect(await orderRoll('pause', options)).toMatchObject({ heard: false, roll: { state: 'paused', sequence: 8 } })
    expect(newestRoll(await fleet.rolls('lab'))).toMatchObject({ state: 'paused', why: 'by office' })
    await fleet.store({ ...newRoll(NAMES), attended: false, sequence: 9 })
    const before = lab.now
    expect(await orderRoll('pause', options)).toMatchObject({ heard: false })
    // It was let go in good order: there is nobody to wait for.
    expect(lab.now).toBe(before)
  })
})
