import { Bitmap } from '../../protocol/bitmap.ts'
import { ROLL_ASK_AGAIN_MS } from './limits.ts'
import type { ReceiptSummary } from './receipt-summary.ts'
import { hasEnded, IS_OFF, isDown, isOver, NOT_POWERED_ON, type Roll, type RollMachine } from './roll.ts'
import { nextWave, type Shortage, type WaveMachine } from './waves.ts'

/** One machine as it was seen a moment ago. */
export interface Sight {
  readonly id: string
  /** The machine answered just now. */
  readonly up: boolean
  /** Names the running mesh process of the machine; empty if the machine is not up. */
  readonly process: string
  readonly inUse: boolean
  /** Image on the disk of the machine, and the newest release of it that the machine knows. */
  readonly image: string
  readonly newest: number
  /** The part of its last receipt that decides its turn. */
  readonly receipt?: Pick<ReceiptSummary, 'key' | 'verified' | 'reason' | 'release'>
  /** Blocks of the release that the machine holds, or held when it was last up. */
  readonly held: Bitmap
  /** Whether the machine has said what it holds. Until then nobody knows what would be lost with it. */
  readonly told: boolean
  /** The machine can be powered on from afar. */
  readonly canWake: boolean
}

/** What the operator knows at one moment. */
export interface View {
  readonly now: number
  readonly windowOpen: boolean
  /** Blocks of the release. */
  readonly blocks: number
  /** Machines of the group, and others near them that hold blocks. */
  readonly sights: readonly Sight[]
}

/** What the operator does to one machine: reset it, or power it on. */
export type RollAction =
  | { readonly type: 'reset'; readonly id: string; readonly warningSeconds: number }
  | { readonly type: 'wake'; readonly id: string }

interface Step {
  /** The same object if nothing has changed. */
  readonly document: Roll
  /** Actions to take once the document is durable, and not before. */
  readonly actions: readonly RollAction[]
}

/** One step of a roll: notes what has become of the machines, and decides what to do. Pure. */
export function rollStep(document: Roll, view: View): Step {
  if (hasEnded(document) || document.state === 'claimed') return { document, actions: [] }
  const sights = new Map(view.sights.map((sight) => [sight.id, sight]))
  const look = (machine: RollMachine): RollMachine => observe(machine, sights.get(machine.id), document, view.now)
  const observed = update(document, { machines: document.machines.map(look) })
  const again = askAgain(observed, sights, view)
  const chosen = choose(judge(again.document), view, sights)
  const after = end(progressed(document, chosen.document, view), view)
  return { document: same(after, document) ? document : after, actions: [...again.actions, ...chosen.actions] }
}

/** Why a machine refused to reset. `forGood`: it will always refuse. */
export interface Refusal {
  readonly why: string
  readonly forGood: boolean
}

/**
 * The roll after machine `id` refused to reset. The machine is asked again after a while, unless it refused for good.
 */
export function refused(document: Roll, id: string, { why, forGood }: Refusal, now: number): Roll {
  const machines = document.machines.map((one) =>
    one.id === id && isDown(one) ? { ...turned(one, forGood ? 'skipped' : 'waiting', now, why), askedAt: now } : one,
  )
  return { ...document, machines }
}

/** The roll after `operator` has taken it over. The clock of the new operator may show another time. */
export function takenOver(
  document: Roll,
  operator: { readonly id: string; readonly name: string },
  epoch: number,
  now: number,
): Roll {
  return {
    ...document,
    epoch,
    sequence: 1,
    operator: operator.id,
    operatorName: operator.name,
    attended: true,
    state: document.state === 'aborting' ? 'aborting' : 'running',
    why: '',
    forgiven: failures(document),
    idleSince: 0,
    machines: document.machines.map((one) =>
      isOver(one) ? one : { ...one, since: now, askedAt: one.askedAt === 0 ? 0 : now },
    ),
  }
}

/** How many machines of a roll have failed so far. */
export function failures({ machines }: Roll): number {
  return machines.filter(({ turn }) => turn === 'failed').length
}

/**
 * The machines as the choice of a wave, and the count of holders, see them. Machines of the roll come first, in its
 * order.
 */
export function waveMachines(document: Roll, view: Pick<View, 'now' | 'sights'>): WaveMachine[] {
  const machines = new Map(document.machines.map((machine) => [machine.id, machine]))
  const order = new Map(document.machines.map(({ id }, i) => [id, i]))
  const placeOf = ({ id }: Sight): number => order.get(id) ?? order.size
  const sights = view.sights.toSorted((a, b) => placeOf(a) - placeOf(b))
  return sights.map(({ id, up, inUse, image, newest, held, told }) => {
    const machine = machines.get(id)
    const knows = told && image === document.image && newest >= document.release
    const isGone = machine !== undefined && isDown(machine)
    // A machine that was given up is not waited for.
    const givenUp = machine !== undefined && (machine.turn === 'failed' || machine.turn === 'skipped') && !up
    return {
      id,
      up: up && !isGone,
      held: givenUp ? new Bitmap(held.length) : held,
      ready: machine?.turn === 'waiting' && knows && mayAsk(machine, view.now) && (!inUse || document.rules.evenInUse),
    }
  })
}

/** Whether a machine may be asked: one that has just refused is left alone for a while. */
function mayAsk({ askedAt }: RollMachine, now: number): boolean {
  return askedAt === 0 || now - askedAt >= ROLL_ASK_AGAIN_MS
}

function observe(machine: RollMachine, sight: Sight | undefined, document: Roll, now: number): RollMachine {
  const { rules } = document
  if (isOver(machine)) return machine
  if (machine.turn === 'woken') {
    // A woken machine that is up may go down at once. It counts as asked, so that it is not woken again.
    if (sight?.up === true) return { ...turned(machine, 'waiting', now), askedAt: 1 }
    if (now - machine.since <= rules.timeoutSeconds * 1000) return machine
    return turned(machine, 'skipped', now, NOT_POWERED_ON)
  }
  if (machine.turn === 'waiting') {
    if (sight?.up === true && sight.image !== document.image)
      return turned(machine, 'skipped', now, sight.image === '' ? 'holds no image' : `has image ${sight.image}`)
    return { ...machine, why: whyNotReady(sight, document) }
  }
  const started = sight?.up === true && sight.process !== machine.process
  const { receipt } = sight ?? {}
  if (started && receipt !== undefined && receipt.key !== machine.receipt) return ended(machine, receipt, document, now)
  const limit = rules.timeoutSeconds + (machine.turn === 'warned' ? rules.warningSeconds : 0)
  if (now - machine.since > limit * 1000) {
    const what = started ? 'came back without a new receipt' : 'did not come back'
    // The receipt from before the reset tells of another restore.
    return { ...turned(machine, 'failed', now, `${what} within ${Math.round(limit / 6) / 10} min`), receipt: '' }
  }
  // The time goes on counting from when the machine went down.
  return started && machine.turn !== 'back' ? { ...machine, turn: 'back', why: 'its receipt is waited for' } : machine
}

function ended(
  machine: RollMachine,
  receipt: NonNullable<Sight['receipt']>,
  { release }: Roll,
  now: number,
): RollMachine {
  const known = { ...machine, receipt: receipt.key }
  if (!receipt.verified) return turned(known, 'failed', now, receipt.reason || 'its restore is not verified')
  if (receipt.release < release) return turned(known, 'failed', now, `restored release ${receipt.release}`)
  return turned(known, 'verified', now)
}

function whyNotReady(sight: Sight | undefined, { release, rules }: Roll): string {
  if (sight?.up !== true) return IS_OFF
  if (sight.newest < release) return `does not know release ${release} yet`
  if (!sight.told) return 'has not said yet what it holds'
  return sight.inUse && !rules.evenInUse ? 'is in use' : ''
}

/** Stops the roll if too many machines have failed. */
function judge(document: Roll): Roll {
  const failed = failures(document)
  if (document.state !== 'running' || failed - document.forgiven < document.rules.stopAfter) return document
  return update(document, { state: 'stopped', why: failed === 1 ? 'a machine failed' : `${failed} machines failed` })
}

function choose(document: Roll, view: View, sights: ReadonlyMap<string, Sight>): Step {
  const { rules, machines } = document
  const room = rules.wave - machines.filter(isDown).length
  if (document.state !== 'running' || !view.windowOpen || room <= 0) return { document, actions: [] }
  const ready = waveMachines(document, view)
  const wave = ready.some((one) => one.ready)
    ? nextWave(view.blocks, ready, { size: room, holders: rules.holders })
    : { ids: [], heldBack: [] }
  const names = new Map(machines.map(({ id, name }) => [id, name]))
  const heldBack = new Map(wave.heldBack.map((one) => [one.id, one]))
  const woken = wakeNext(document, view, room)
  const actions: RollAction[] = []
  const chosen = machines.map((machine): RollMachine => {
    const sight = sights.get(machine.id)
    if (woken.has(machine.id)) {
      actions.push({ type: 'wake', id: machine.id })
      return { ...turned(machine, 'woken', view.now), askedAt: view.now }
    }
    if (sight !== undefined && wave.ids.includes(machine.id)) {
      const warn = sight.inUse && rules.warningSeconds > 0
      actions.push({ type: 'reset', id: machine.id, warningSeconds: warn ? rules.warningSeconds : 0 })
      return {
        ...turned(machine, warn ? 'warned' : 'down', view.now, warn ? 'is in use' : ''),
        askedAt: view.now,
        process: sight.process,
        receipt: sight.receipt?.key ?? '',
      }
    }
    const shortage = heldBack.get(machine.id)
    if (shortage !== undefined) return { ...machine, why: describeShortage(shortage) }
    const { waitsFor } = wave
    if (waitsFor === undefined || machine.turn !== 'waiting' || machine.why !== '') return machine
    return {
      ...machine,
      why: `waits for ${names.get(waitsFor.id) ?? waitsFor.id}: block ${waitsFor.block} is on ${waitsFor.holders}`,
    }
  })
  return { document: update(document, { machines: chosen }), actions }
}

function describeShortage({ block, holders }: Shortage): string {
  return `is needed: block ${block} would be on ${holders} running machine${holders === 1 ? '' : 's'}`
}

/** Powers on machines that are off, shortly before their turn: as many as may go down. */
function wakeNext({ rules, machines }: Roll, { sights }: View, room: number): ReadonlySet<string> {
  if (!rules.wake) return new Set()
  const off = new Set(sights.filter(({ up, canWake }) => !up && canWake).map(({ id }) => id))
  const waking = machines.filter(({ turn }) => turn === 'woken').length
  const ready = machines.filter(({ id, turn, why }) => turn === 'waiting' && !off.has(id) && why === '').length
  const next = machines.filter(({ id, turn, askedAt }) => turn === 'waiting' && askedAt === 0 && off.has(id))
  return new Set(next.slice(0, Math.max(0, room - waking - ready)).map(({ id }) => id))
}

/**
 * Asks a machine again that runs on as before: it may not have heard, because the operator may have been killed before
 * it could ask.
 */
function askAgain(document: Roll, sights: ReadonlyMap<string, Sight>, { now }: View): Step {
  const isDue = (machine: RollMachine): boolean => {
    const { id, turn, since, askedAt, process } = machine
    const sight = sights.get(id)
    if ((turn !== 'down' && turn !== 'warned') || sight?.up !== true || sight.process !== process) return false
    const goes = turn === 'warned' ? since + document.rules.warningSeconds * 1000 : askedAt
    return now - Math.max(goes, askedAt) >= ROLL_ASK_AGAIN_MS
  }
  const due = new Set(document.machines.filter(isDue).map(({ id }) => id))
  const machines = document.machines.map((one) => (due.has(one.id) ? { ...one, askedAt: now } : one))
  return {
    document: update(document, { machines }),
    actions: [...due].map((id) => ({ type: 'reset', id, warningSeconds: 0 })),
  }
}

/** Patience begins anew when a machine is done or has come up, and not when one refuses. */
function progressed(before: Roll, after: Roll, { now }: View): Roll {
  const count = ({ machines }: Roll): number => machines.filter((one) => isOver(one) || one.turn === 'woken').length
  return count(before) === count(after) ? after : update(after, { idleSince: now })
}

function end(document: Roll, { now, windowOpen }: View): Roll {
  const { machines, state, rules } = document
  if (machines.some((one) => isDown(one) || one.turn === 'woken')) return document
  const waiting = machines.filter(({ turn }) => turn === 'waiting')
  if (state === 'aborting') {
    const rest = machines.map((one) => (isOver(one) ? one : turned(one, 'skipped', now, 'the roll was aborted')))
    return update(document, { machines: rest, state: 'aborted', endedAt: now })
  }
  if (waiting.length === 0 && state === 'running') return update(document, { state: 'done', endedAt: now })
  if (state !== 'running' || !windowOpen) return update(document, { idleSince: 0 })
  if (document.idleSince === 0) return update(document, { idleSince: now })
  if (now - document.idleSince <= rules.patienceSeconds * 1000) return document
  // Machines that are off are given up first: perhaps only they kept the others waiting.
  const off = waiting.filter(({ why }) => why === IS_OFF)
  const given = new Set((off.length > 0 ? off : waiting).map(({ id }) => id))
  const rest = machines.map((one) => (given.has(one.id) ? turned(one, 'skipped', now, one.why) : one))
  return update(document, { machines: rest, idleSince: 0 })
}

function turned(machine: RollMachine, turn: RollMachine['turn'], now: number, why = ''): RollMachine {
  return { ...machine, turn, since: now, why }
}

function update(document: Roll, change: Partial<Roll>): Roll {
  return { ...document, ...change }
}

function same(a: Roll, b: Roll): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}
