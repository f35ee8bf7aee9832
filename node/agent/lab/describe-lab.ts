import { formatTime } from '../../../protocol/local-time.ts'
import type { MachineState } from '../../../protocol/operate-messages.ts'
import type { Member, Role } from '../../trust/members.ts'
import { listedAt, type TimedReceipt } from '../receipts/receipt-time.ts'
import { describeWentBack, type WentBack } from '../receipts/went-back.ts'
import { METADATA_SOON_MS } from './limits.ts'
import type { Sighting } from './sightings.ts'

/** How much a machine wants to be looked at. */
export type Level = 'ok' | 'warning' | 'critical'

/** One machine of the site, as far as is known here. */
export interface LabMachine {
  readonly name: string
  readonly id: string
  readonly role: Role
  readonly site: string
  readonly group: string
  /** `busy`: it is connected and says nothing of itself, as during a restore. */
  readonly state: 'on' | 'busy' | 'off' | 'never seen'
  /** When it said what is listed here, ISO 8601. */
  readonly seenAt?: string
  readonly addresses?: readonly string[]
  readonly version?: string
  /** Path of its disk. */
  readonly device?: string
  /** What the disk was last restored to; `whole`: that ended verified. */
  readonly disk?: { readonly image: string; readonly release: number; readonly whole: boolean }
  /** Newest release of its image. */
  readonly newest?: number
  /** The release that its next restore brings, and blocks of it that are fetched ahead. */
  readonly staged?: {
    readonly release: number
    readonly wanted?: number
    readonly staged?: number
    readonly done: boolean
  }
  readonly inUse?: boolean
  /** A reset was granted that has not happened yet. */
  readonly resetting?: boolean
  /** Its last restore that is known of. */
  readonly restore?: {
    readonly verified: boolean
    /** ISO 8601; absent if its clock was wrong and nobody knows when its receipt came. */
    readonly at?: string
    readonly image: string | null
    readonly release: number | null
    readonly seconds: number
    /** What its write log was, such as `nbd`, `era` or `none`. */
    readonly log?: string
    readonly restored?: number
    readonly fetched?: number
    /** Bytes. */
    readonly received?: number
    readonly from?: readonly { readonly name: string; readonly blocks: number }[]
  }
  readonly level: Level
  /** Why it is not `ok`, the worst first. */
  readonly trouble: readonly string[]
}

/** What is known of the site. */
export interface LabFacts {
  readonly members: readonly Member[]
  /** What machines said: those that answered now, and what others said last. */
  readonly sightings: ReadonlyMap<string, Sighting>
  readonly states: ReadonlyMap<string, LabMachine['state']>
  readonly receipts: readonly TimedReceipt[]
  readonly wentBack: readonly WentBack[]
  readonly newest: (image: string) => number | undefined
  /** Unix ms. */
  readonly metadataExpires: number
  readonly now: number
  /** A machine that is off for longer than this, in milliseconds, is a warning. */
  readonly awayMs: number
}

type Trouble = readonly [Exclude<Level, 'ok'>, string]
const LEVELS: readonly Level[] = ['critical', 'warning', 'ok']

/** All machines of the site, those in trouble first, then by name. */
export function describeMachines(facts: LabFacts): LabMachine[] {
  const last = new Map<string, TimedReceipt>()
  for (const receipt of facts.receipts)
    if (receipt.id !== undefined && (last.get(receipt.id)?.number ?? -1) < receipt.number) last.set(receipt.id, receipt)
  const liars = offenders(facts.receipts, facts)
  return facts.members
    .map((member) => describeOne(member, last.get(member.id), liars.get(member.name) ?? [], facts))
    .sort((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level) || a.name.localeCompare(b.name, 'en', NUMERIC))
}
const NUMERIC = { numeric: true } as const

/** What concerns the site as a whole. */
export function describeSiteTrouble({ metadataExpires, now }: LabFacts): Trouble[] {
  const at = formatTime(metadataExpires)
  if (metadataExpires <= now) return [['critical', `the signed metadata expired at ${at}: start the master`]]
  if (metadataExpires - now < METADATA_SOON_MS)
    return [['warning', `the signed metadata expires at ${at}: start the master`]]
  return []
}

/** The worst of several levels. */
export function worst(levels: readonly Level[]): Level {
  return LEVELS.find((level) => levels.includes(level)) ?? 'ok'
}

function describeOne(
  member: Member,
  receipt: TimedReceipt | undefined,
  lies: readonly Trouble[],
  facts: LabFacts,
): LabMachine {
  const sighting = facts.sightings.get(member.id)
  const state = facts.states.get(member.id) ?? (sighting === undefined && receipt === undefined ? 'never seen' : 'off')
  const told = sighting?.state
  const image = told?.disk?.image ?? receipt?.image ?? undefined
  const newest = image === undefined ? undefined : facts.newest(image)
  const restore = receipt === undefined ? undefined : describeRestore(receipt)
  const trouble = [
    ...troubleOfRestore(receipt),
    ...troubleOfState(told, newest, state),
    ...troubleOfSilence(member, { state, sighting, receipt }, facts),
    ...lies,
    ...facts.wentBack
      .filter(({ machine }) => machine === member.name)
      .map((one): Trouble => ['warning', describeWentBack(one)]),
  ].sort(([a], [b]) => LEVELS.indexOf(a) - LEVELS.indexOf(b))
  const { name, id, role, site, group } = member
  return {
    ...{ name, id, role, site, group, state },
    ...(sighting === undefined ? {} : { seenAt: sighting.at, ...describeState(sighting.state) }),
    ...(newest === undefined ? {} : { newest }),
    ...(restore === undefined ? {} : { restore }),
    level: worst(trouble.map(([level]) => level)),
    trouble: trouble.map(([, text]) => text),
  }
}

function describeState(told: MachineState): Partial<LabMachine> {
  const { disk, inUse, reset, addresses, version, device } = told
  const staged = describeStaged(told)
  return {
    inUse,
    resetting: reset.pending,
    ...(addresses === undefined ? {} : { addresses }),
    ...(version === undefined ? {} : { version }),
    ...(device === undefined ? {} : { device }),
    ...(disk === null ? {} : { disk: { image: disk.image, release: disk.release, whole: disk.whole } }),
    ...(staged === undefined ? {} : { staged }),
  }
}

function describeStaged({ staged, staging }: MachineState): LabMachine['staged'] {
  if (staging !== undefined) return { ...staging, done: staged === staging.release }
  return staged === null ? undefined : { release: staged, done: true }
}

function describeRestore(receipt: TimedReceipt): NonNullable<LabMachine['restore']> {
  const { verified, image, release, ms, result } = receipt
  const at = listedAt(receipt)
  return {
    verified,
    ...(at === undefined ? {} : { at: new Date(at).toISOString() }),
    ...{ image, release, seconds: ms / 1000 },
    ...(result === null
      ? {}
      : {
          log: result.log.source,
          restored: result.blocks.dirty,
          fetched: result.blocks.fetched,
          received: result.bytes.received,
          from: result.peers.filter(({ blocks }) => blocks > 0).map(({ name, blocks }) => ({ name, blocks })),
        }),
  }
}

function troubleOfRestore(receipt: TimedReceipt | undefined): Trouble[] {
  if (receipt === undefined) return []
  const { verified, failure, result, clockWrong } = receipt
  const at = listedAt(receipt)
  const when = at === undefined ? '' : ` at ${formatTime(at)}`
  const missed = result?.log.missed ?? null
  return [
    ...(verified ? [] : [['critical', `NOT verified${when}: ${failure?.message ?? 'blocks are wrong'}`] as const]),
    ...(missed === null ? [] : [['critical', `its write log did not know that block ${missed} was changed`] as const]),
    ...(clockWrong === true ? [['warning', 'its clock is wrong'] as const] : []),
  ]
}

function troubleOfState(
  told: MachineState | undefined,
  newest: number | undefined,
  state: LabMachine['state'],
): Trouble[] {
  if (told === undefined) return []
  const { disk, reset } = told
  const found: Trouble[] = []
  if (reset.failure !== null) found.push(['warning', `it could not be reset: ${reset.failure}`])
  // What is off is brought to the newest release when it is switched on.
  if (disk === null || state !== 'on') return found
  if (!disk.whole) found.push(['critical', 'a restore of its disk has not ended'])
  const staged = describeStaged(told)
  if (newest !== undefined && disk.release < newest && !(staged?.release === newest && staged.done)) {
    const text = `it has release ${disk.release}, and release ${newest} is not fetched yet${progressOf(staged)}`
    found.push(['warning', text])
  }
  return found
}

const progressOf = (staged: LabMachine['staged']): string =>
  staged?.wanted === undefined ? '' : ` (${staged.staged ?? 0} of ${staged.wanted} blocks)`

function troubleOfSilence(
  { role }: Member,
  {
    state,
    sighting,
    receipt,
  }: { state: LabMachine['state']; sighting: Sighting | undefined; receipt: TimedReceipt | undefined },
  { now, awayMs }: LabFacts,
): Trouble[] {
  if (state === 'never seen') return role === 'machine' ? [['warning', 'has told nothing yet']] : []
  if (state !== 'off') return []
  const told = receipt === undefined ? undefined : listedAt(receipt)
  const at = Math.max(sighting === undefined ? 0 : Date.parse(sighting.at), told ?? 0)
  return now - at > awayMs ? [['warning', `not seen since ${formatTime(at)}`]] : []
}

/** Machines that sent wrong blocks, as the last receipts of others say, by name. */
function offenders(receipts: readonly TimedReceipt[], { now, awayMs }: LabFacts): Map<string, Trouble[]> {
  const found = new Map<string, Trouble[]>()
  for (const receipt of receipts) {
    if (now - (listedAt(receipt) ?? 0) > awayMs) continue
    for (const { name, bad } of receipt.result?.peers ?? [])
      if (bad > 0) found.set(name, [['warning', `it sent ${bad} wrong blocks to ${receipt.machine}`]])
  }
  return found
}
