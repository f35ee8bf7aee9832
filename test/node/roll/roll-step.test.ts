import { describe, expect, it } from 'vitest'
import { ROLL_ASK_AGAIN_MS } from '../../../node/roll/limits.ts'
import { brief, hasEnded, isDown, isOver, parseRoll, type Roll } from '../../../node/roll/roll.ts'
import { type RollAction, refused, rollStep, type Sight, takenOver, type View } from '../../../node/roll/roll-step.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { MAX_ROLL_BYTES, MAX_ROLL_MACHINES } from '../../../protocol/constants.ts'
import { Random } from '../../../tools/lab/random.ts'
import { testSeed } from '../../support/seed.ts'
import { LabModel, newRoll, RULES } from './lab-model.ts'

const RUNS = 200
const TICK_MS = 30_000
const BLOCKS = 8

function full(): Bitmap {
  const held = new Bitmap(BLOCKS)
  held.setRange(0, BLOCKS)
  return held
}

function sight(id: string, over: Partial<Sight> = {}): Sight {
  const known = {
    up: true,
    process: 'first',
    inUse: false,
    image: 'win',
    newest: 3,
    held: full(),
    told: true,
    canWake: false,
  }
  return { id, ...known, ...over }
}

function view(sights: readonly Sight[], now = 1, windowOpen = true): View {
  return { now, windowOpen, blocks: BLOCKS, sights }
}

const verified = { key: 'r2', release: 3, verified: true, reason: '' }
const turns = ({ machines }: Roll): string[] => machines.map(({ turn }) => turn)
const whys = ({ machines }: Roll): string[] => machines.map(({ why }) => why)
const ids = (actions: readonly RollAction[]): string[] => actions.map(({ id }) => id)

describe('a roll in a lab of which anything may be expected', () => {
  it('ends, is the same again from its document, and no action of it ever leaves a block on too few machines', () => {
    const seed = testSeed('roll')
    let resets = 0
    let wakes = 0
    for (let run = 0; run < RUNS; run++) {
      const random = new Random(seed + run)
      const names = Array.from({ length: 3 + random.below(8) }, (_, i) => `pc${i}`)
      const model = new LabModel([...names, 'master'], 1 + random.below(30), random)
      const rules = {
        ...RULES,
        wave: 1 + random.below(4),
        holders: random.below(4),
        evenInUse: random.next() < 0.3,
        wake: random.next() < 0.5,
        stopAfter: 1 + random.below(20),
      }
      let document = newRoll(names, { rules })
      let open = true
      for (let ticks = 0; !hasEnded(document); ticks++) {
        expect(ticks, `run ${run} ends`).toBeLessThan(2000)
        if (random.next() < 0.02) open = !open
        const seen = model.view(open || ticks > 200)
        const step = rollStep(document, seen)
        // Another operator would do the same from what is kept.
        const again = rollStep(parseRoll(JSON.parse(JSON.stringify(document))), seen)
        expect(JSON.stringify(again)).toBe(JSON.stringify(step))
        const going = step.actions.filter(({ type }) => type === 'reset')
        const fresh = going
          .map(({ id }) => id)
          .filter((id) => !document.machines.some((one) => one.id === id && isDown(one)))
        const inUse = new Set(model.machines.filter((one) => one.inUse).map(({ id }) => id))
        if (fresh.length > 0) {
          expect(model.broken(step.document, fresh), `run ${run}, tick ${ticks}`).toEqual([])
          expect(seen.windowOpen && document.state === 'running').toBe(true)
          if (!rules.evenInUse) expect(fresh.filter((id) => inUse.has(id))).toEqual([])
        }
        if (fresh.length > 0) expect(step.document.machines.filter(isDown).length).toBeLessThanOrEqual(rules.wave)
        document = step.document
        for (const action of step.actions) {
          if (action.type === 'reset') resets++
          else wakes++
          // A killed operator has written what it was about to do, and has not done it.
          if (random.next() < 0.05)
            document = takenOver(document, { id: 'other', name: 'other' }, document.epoch + 1, model.now)
          else if (model.act(action) === 'in use')
            document = refused(document, action.id, { why: 'is in use', forGood: false }, model.now)
        }
        if (document.state === 'stopped') {
          if (!document.machines.some(isDown))
            document = takenOver(document, { id: 'a', name: 'a' }, document.epoch + 1, model.now)
        } else if (document.state === 'running' && random.next() < 0.001) document = { ...document, state: 'aborting' }
        model.tick(TICK_MS, ticks < 200 ? 0.02 : 0)
      }
      expect(document.machines.every(isOver)).toBe(true)
    }
    // Otherwise nothing was tried.
    expect(resets).toBeGreaterThan(RUNS)
    expect(wakes).toBeGreaterThan(0)
  })
})

describe('a roll', () => {
  it('resets as many as a wave has, waits for a new start and a new receipt, and goes on', () => {
    const lab = ['a', 'b', 'c', 'd'].map((id) => sight(id, { receipt: { ...verified, key: 'r1' } }))
    const first = rollStep(newRoll(['a', 'b', 'c', 'd']), view(lab))
    expect(first.actions).toEqual([
      { type: 'reset', id: 'a', warningSeconds: 0 },
      { type: 'reset', id: 'b', warningSeconds: 0 },
    ])
    expect(turns(first.document)).toEqual(['down', 'down', 'waiting', 'waiting'])
    // a started again without a receipt, b has a receipt without having started.
    const half = [
      sight('a', { process: 'second', receipt: { ...verified, key: 'r1' } }),
      sight('b', { receipt: verified }),
    ]
    const second = rollStep(first.document, view([...half, ...lab.slice(2)], 1000))
    expect(turns(second.document)).toEqual(['back', 'down', 'waiting', 'waiting'])
    expect(second.actions).toEqual([])
    const back = ['a', 'b'].map((id) => sight(id, { process: 'second', receipt: verified }))
    const third = rollStep(second.document, view([...back, ...lab.slice(2)], 2000))
    expect(turns(third.document)).toEqual(['verified', 'verified', 'down', 'down'])
    const all = ['a', 'b', 'c', 'd'].map((id) => sight(id, { process: 'second', receipt: verified }))
    const last = rollStep(third.document, view(all, 3000)).document
    expect(last).toMatchObject({ state: 'done', endedAt: 3000 })
    expect(rollStep(last, view(all, 4000))).toEqual({ document: last, actions: [] })
  })

  it('fails machines that do not come back, restore wrongly or another release, and stops after so many', () => {
    const rules = { ...RULES, wave: 3, holders: 1, stopAfter: 3 }
    const lab = ['a', 'b', 'c', 'd', 'e'].map((id) => sight(id))
    const { document } = rollStep(newRoll(['a', 'b', 'c', 'd', 'e'], { rules }), view(lab))
    const after = [
      sight('a', { up: false }),
      sight('b', {
        process: 'second',
        receipt: { ...verified, verified: false, reason: 'BLOCKS_UNAVAILABLE: block 7' },
      }),
      sight('c', { process: 'second', receipt: { ...verified, release: 2 } }),
      ...lab.slice(3),
    ]
    const soon = rollStep(document, view(after, 1000))
    expect(turns(soon.document)).toEqual(['down', 'failed', 'failed', 'down', 'down'])
    const late = rollStep(soon.document, view(after, RULES.timeoutSeconds * 1000 + 2))
    expect(late.document).toMatchObject({ state: 'stopped', why: '3 machines failed' })
    expect(whys(late.document).slice(0, 3)).toEqual([
      'did not come back within 10 min',
      'BLOCKS_UNAVAILABLE: block 7',
      'restored release 2',
    ])
    const again = takenOver(late.document, { id: 'x', name: 'x' }, 2, 700_000)
    expect(again).toMatchObject({ state: 'running', epoch: 2, operator: 'x', forgiven: 3 })
    expect(rollStep(again, view(after, 700_000)).document.state).toBe('running')
  })

  it('leaves machines in use alone until patience ends, or warns them first', () => {
    const lab = [sight('a', { inUse: true }), sight('b'), sight('c')]
    const first = rollStep(newRoll(['a']), view(lab))
    expect(first.actions).toEqual([])
    expect(whys(first.document)).toEqual(['is in use'])
    const last = rollStep(first.document, view(lab, RULES.patienceSeconds * 1000 + 2))
    expect(last.document.machines[0]).toMatchObject({ turn: 'skipped', why: 'is in use' })
    const rules = { ...RULES, evenInUse: true }
    const warned = rollStep(newRoll(['a'], { rules }), view(lab))
    expect(warned.actions).toEqual([{ type: 'reset', id: 'a', warningSeconds: 60 }])
    expect(turns(warned.document)).toEqual(['warned'])
    const goes = 60_001 + ROLL_ASK_AGAIN_MS
    expect(rollStep(warned.document, view(lab, goes - 1)).actions).toEqual([])
    expect(rollStep(warned.document, view(lab, goes)).actions).toEqual([{ type: 'reset', id: 'a', warningSeconds: 0 }])
  })

  it('takes nothing down outside its window, while paused, or after abort, and waits for what is down', () => {
    const lab = ['a', 'b', 'c', 'd'].map((id) => sight(id))
    expect(rollStep(newRoll(['a', 'b', 'c', 'd']), view(lab, 0, false)).actions).toEqual([])
    const running = rollStep(newRoll(['a', 'b', 'c', 'd'], { rules: { ...RULES, wave: 1 } }), view(lab)).document
    const back = [sight('a', { process: 'second', receipt: verified }), ...lab.slice(1)]
    const paused = rollStep({ ...running, state: 'paused' }, view(back, 1000))
    expect(paused.actions).toEqual([])
    expect(turns(paused.document)).toEqual(['verified', 'waiting', 'waiting', 'waiting'])
    // However long: nobody loses patience while nothing may be done.
    expect(rollStep(paused.document, view(back, 1e9)).document.machines).toEqual(paused.document.machines)
    const aborting = rollStep({ ...running, state: 'aborting' }, view(lab, 1000)).document
    expect(aborting.state).toBe('aborting')
    const aborted = rollStep(aborting, view(back, 2000)).document
    expect(aborted.state).toBe('aborted')
    expect(turns(aborted)).toEqual(['verified', 'skipped', 'skipped', 'skipped'])
  })

  it('tells a machine again that runs on as before, once in a while, and takes no for an answer', () => {
    const lab = ['a', 'b', 'c'].map((id) => sight(id))
    const { document } = rollStep(newRoll(['a']), view(lab))
    expect(rollStep(document, view(lab, ROLL_ASK_AGAIN_MS)).actions).toEqual([])
    const again = rollStep(document, view(lab, ROLL_ASK_AGAIN_MS + 1))
    expect(ids(again.actions)).toEqual(['a'])
    expect(rollStep(again.document, view(lab, ROLL_ASK_AGAIN_MS + 2)).actions).toEqual([])
    const now = ROLL_ASK_AGAIN_MS + 1
    const no = refused(again.document, 'a', { why: 'is in use', forGood: false }, now)
    expect(no.machines[0]).toMatchObject({ turn: 'waiting', why: 'is in use' })
    expect(rollStep(no, view(lab, 2 * now - 2)).actions).toEqual([])
    expect(ids(rollStep(no, view(lab, 2 * now)).actions)).toEqual(['a'])
    const never = refused(again.document, 'a', { why: 'is not reset from afar', forGood: true }, now)
    expect(never.machines[0]).toMatchObject({ turn: 'skipped', why: 'is not reset from afar' })
  })

  it('loses patience with a machine that says no each time, though it is asked again and again', () => {
    const lab = ['a', 'b', 'c'].map((id) => sight(id))
    let document = newRoll(['a'])
    let asked = 0
    let now = 1
    for (; document.state === 'running' && now < 1e7; now += 1000) {
      const step = rollStep(document, view(lab, now))
      document = step.document
      if (step.actions.length > 0) document = refused(document, 'a', { why: 'no', forGood: false }, now)
      asked += step.actions.length
    }
    expect(turns(document)).toEqual(['skipped'])
    expect(asked).toBeGreaterThan(10)
    expect(now).toBeLessThan(2 * RULES.patienceSeconds * 1000)
  })

  it('powers machines on before their turn, and skips those that do not come', () => {
    const rules = { ...RULES, wake: true, holders: 0 }
    const lab = [
      sight('a', { up: false, canWake: true }),
      sight('b', { up: false, canWake: true }),
      sight('c', { up: false }),
    ]
    const off = lab.map((one) => ({ ...one, held: new Bitmap(BLOCKS) }))
    const first = rollStep(newRoll(['a', 'b', 'c'], { rules }), view(off))
    expect(first.actions).toEqual([
      { type: 'wake', id: 'a' },
      { type: 'wake', id: 'b' },
    ])
    const second = rollStep(first.document, view([sight('a'), ...off.slice(1)], 20_000))
    expect(turns(second.document)).toEqual(['down', 'woken', 'waiting'])
    const third = rollStep(second.document, view(off, RULES.timeoutSeconds * 1000 + 2000)).document
    expect(whys(third)[1]).toBe('was told to power on, and did not come up')
    expect(turns(third)[1]).toBe('skipped')
  })

  it('skips machines with another image, and waits until they know the release', () => {
    const lab = [
      sight('a', { image: 'linux' }),
      sight('b', { newest: 2 }),
      sight('c', { image: '' }),
      sight('d'),
      sight('e'),
    ]
    const { document, actions } = rollStep(newRoll(['a', 'b', 'c']), view(lab))
    expect(turns(document)).toEqual(['skipped', 'waiting', 'skipped'])
    expect(whys(document)).toEqual(['has image linux', 'does not know release 3 yet', 'holds no image'])
    expect(actions).toEqual([])
  })

  it('takes nobody down who has not said yet what it holds', () => {
    const lab = [sight('a', { told: false, held: new Bitmap(BLOCKS) }), sight('b'), sight('c')]
    const { document, actions } = rollStep(newRoll(['a']), view(lab))
    expect(actions).toEqual([])
    expect(whys(document)).toEqual(['has not said yet what it holds'])
  })

  it('gives up first who is off, so that others need not wait for them', () => {
    const held = (over: Partial<Sight> = {}): Sight[] => ['a', 'b', 'c'].map((id) => sight(id, id === 'c' ? over : {}))
    const started = { ...newRoll(['a', 'c']), rules: { ...RULES, holders: 1, stopAfter: 9 } }
    const gone = held({ up: false }).map((one) => (one.id === 'b' ? { ...one, held: new Bitmap(BLOCKS) } : one))
    const third = { ...gone[0]!, held: full() }
    const waits = rollStep({ ...started, rules: { ...started.rules, holders: 2 } }, view([third, gone[1]!, gone[2]!]))
    expect(waits.actions).toEqual([])
    expect(whys(waits.document)).toEqual(['waits for c: block 0 is on 1', 'is off'])
    const later = rollStep(waits.document, view([third, gone[1]!, gone[2]!], RULES.patienceSeconds * 1000 + 2)).document
    expect(turns(later)).toEqual(['waiting', 'skipped'])
    const end = rollStep(later, view([third, gone[1]!, gone[2]!], RULES.patienceSeconds * 1000 + 3)).document
    expect(whys(end)[0]).toBe('is needed: block 0 would be on 0 running machines')
  })

  it('fits what machines store, with as many of them as there may be', () => {
    const names = Array.from({ length: MAX_ROLL_MACHINES }, (_, i) => `${i}`.padEnd(63, '-'))
    const said = brief('the check \u201cwho\u201d failed: \u001b[2J'.repeat(9))
    expect(said).toMatch(/^[ -~]{80}$/)
    const { machines, ...rest } = newRoll(names)
    const long = {
      id: 'x'.repeat(52),
      turn: 'verified',
      why: said,
      since: 2 ** 42,
      askedAt: 2 ** 42,
      receipt: '9'.repeat(9),
    }
    const body = { ...rest, machines: machines.map((one) => ({ ...one, ...long, process: 'f'.repeat(16) })) }
    expect(JSON.stringify({ group: 'lab', roll: 'roll-1', epoch: 1, sequence: 1, body }).length).toBeLessThan(
      MAX_ROLL_BYTES,
    )
  })

  it.each([
    ['no object', 7],
    ['no image', { ...newRoll(['a']), image: undefined }],
    ['no state', { ...newRoll(['a']), state: 'lost' }],
    ['a machine twice', newRoll(['a', 'a'])],
    ['too many machines', newRoll(Array.from({ length: 129 }, (_, i) => `pc${i}`))],
    ['a terminal’s control character', newRoll(['a'], { why: '\u001b[2J' })],
    ['no epoch', newRoll(['a'], { epoch: 0 })],
    ['a negative time', newRoll(['a'], { startedAt: -1 })],
    ['no wave', newRoll(['a'], { rules: { ...RULES, wave: 0 } })],
  ])('is refused as a document with %s', (_, value) => {
    expect(() => parseRoll(value)).toThrow(/damaged/)
    expect(parseRoll(newRoll(['a']))).toEqual(newRoll(['a']))
  })
})
