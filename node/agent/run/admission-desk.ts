import {
  MAX_FACT_BYTES,
  MAX_MAC_ADDRESSES,
  MAX_MEMBERS,
  MAX_TEXT_BYTES,
  MAX_TOLD_DISKS,
} from '../../../protocol/constants.ts'
import { checkDocument } from '../../../protocol/document.ts'
import { MeshError } from '../../../protocol/errors.ts'
import {
  anyText,
  list,
  literal,
  natural,
  object,
  optional,
  text,
  time,
  truth,
  which,
} from '../../../protocol/json-shape.ts'
import { isMachineName, isPlaceName } from '../../../protocol/names.ts'
import type { Approval, ApprovalBook, ApprovalKey } from '../../trust/approvals.ts'
import { isMacAddress, type Place } from '../../trust/members.ts'
import { type Admission, type Candidate, candidateOf, type Terms } from '../mesh/admission.ts'
import { APPROVAL_MS, MAX_WAITING, REFUSAL_MS } from '../mesh/limits.ts'

type Params = Readonly<Record<string, unknown>>

/** What the methods of the master about machines that ask to be enrolled work with. */
export interface AdmissionDesk {
  readonly admission: Admission
  readonly approvals: ApprovalBook
  readonly site: string
  /** Hexadecimal. */
  readonly siteId: string
  /** The place that `site` and `group` name, as members spell it. Errors: USAGE. */
  readonly place: (params: Params) => Place
}

const words = text(MAX_TEXT_BYTES)
const fact = text(MAX_FACT_BYTES)
/** A reason of an error names what a stranger said. */
const reason = anyText(4 * MAX_TEXT_BYTES)

const isWaiting = object({
  name: words,
  code: words,
  id: words,
  state: literal('waiting', 'approved', 'refused'),
  mac: list(fact, MAX_MAC_ADDRESSES),
  model: fact,
  serial: fact,
  memory: natural(),
  disks: list(object({ name: fact, size: natural(), model: fact }), MAX_TOLD_DISKS),
  disk: fact,
  holds: fact,
  address: words,
  since: time,
  asked: time,
  wanted: optional(fact),
  replaces: optional(words),
  problem: optional(reason),
})

/** The answer to `machines`. */
export const isMachines = object({
  event: literal('machines'),
  site: words,
  siteId: words,
  machines: list(isWaiting, MAX_WAITING),
  approvals: list(
    object({ for: words, name: optional(words), group: optional(words), wipe: truth, expires: time }),
    2 * MAX_MEMBERS,
  ),
})

const named = object({ name: words, code: words, id: words })

/** The answer to `approve`. */
export const isApproved = object({
  event: literal('approved'),
  machines: list(object({ name: words, code: words, id: words, replaces: optional(words), wipe: truth }), MAX_WAITING),
  left: list(object({ name: words, code: words, id: words, why: reason }), MAX_WAITING),
  listed: natural(),
  expires: optional(time),
})

/** The answer to `refuse`. */
export const isRefused = object({ event: literal('refused'), machines: list(named, MAX_WAITING) })

const REQUEST = {
  name: 'the request',
  fault: 'USAGE',
  shape: object({
    name: optional(words),
    code: optional(words),
    all: optional(truth),
    ttlMs: optional(natural()),
    as: optional(which(words, isMachineName)),
    wipe: optional(truth),
    site: optional(isPlaceName),
    group: optional(isPlaceName),
    list: optional(
      list(
        object({ mac: which(words, isMacAddress), name: which(words, isMachineName), group: optional(isPlaceName) }),
        MAX_MEMBERS,
      ),
    ),
  }),
} as const

/** Who asks to be enrolled, and which approvals wait for somebody. */
export function listMachines({ admission, approvals, site, siteId }: AdmissionDesk) {
  return {
    event: 'machines' as const,
    site,
    siteId,
    machines: admission.candidates().map(({ id, code, facts, address, since, asked, decision, weighed }) => ({
      ...facts,
      name: weighed.name,
      code,
      id,
      state: decision,
      address,
      since: new Date(since).toISOString(),
      asked: new Date(asked).toISOString(),
      ...(weighed.name === facts.name ? {} : { wanted: facts.name }),
      ...(weighed.replaces === undefined ? {} : { replaces: weighed.replaces.name }),
      ...(weighed.problem === undefined ? {} : { problem: weighed.problem.message }),
    })),
    approvals: approvals.standing().map(([key, { name, group, wipe, expiresAt }]) => ({
      for: key.replace(/^mac:/, ''),
      ...(name === undefined ? {} : { name }),
      ...(group === undefined ? {} : { group }),
      wipe: wipe === true,
      expires: new Date(expiresAt).toISOString(),
    })),
  }
}

/** Lets machines in that wait, or will ask. Errors: NOBODY_WAITS, USAGE, NAME_TAKEN, DISK_FOREIGN, SITE_FULL, DISK_FULL. */
export async function approve(desk: AdmissionDesk, params: Params) {
  const { name, code, all = false, ttlMs, as, wipe, site, group, list: entries = [] } = checkDocument(REQUEST, params)
  const { admission, approvals } = desk
  const at = Date.now()
  const place = site === undefined && group === undefined ? {} : desk.place(params)
  const terms: Terms = { ...place, ...(wipe === true ? { wipe } : {}) }
  const until = (ms: number): Pick<Approval, 'decision' | 'at' | 'expiresAt'> => ({
    decision: 'approve',
    at,
    expiresAt: at + ms,
  })
  const isOne = name !== undefined || code !== undefined
  if (!isOne && !all && entries.length === 0) throw new MeshError('USAGE', 'say which machines are approved')
  const chosen = isOne ? [candidateOf(admission.candidates(), { name, code })] : all ? admission.candidates() : []
  const own: Terms = as === undefined ? terms : { ...terms, name: as }
  const weighed = chosen
    .filter((one) => isOne || (one.decision !== 'refused' && !isApprovedAlready(one)))
    .map((candidate) => ({ candidate, so: admission.weigh(candidate.id, candidate.facts, own) }))
  const first = weighed[0]?.so.problem
  if (isOne && first !== undefined) throw first
  const taken = weighed.filter(({ so }) => so.problem === undefined)
  const expiresAt = ttlMs ?? APPROVAL_MS
  const decided: (readonly [ApprovalKey, Approval])[] = [
    ...taken.map(
      ({ candidate, so }) =>
        [`id:${candidate.id}`, { ...until(APPROVAL_MS), ...own, name: so.name, replaces: so.replaces?.id }] as const,
    ),
    ...entries.map(({ mac, name: its, group: room = group }) => {
      const where = room === undefined ? place : desk.place({ site, group: room })
      return [`mac:${mac}`, { ...until(expiresAt), ...terms, ...where, name: its }] as const
    }),
    ...(all && ttlMs !== undefined ? ([['all', { ...until(ttlMs), ...terms }]] as const) : []),
  ]
  await approvals.put(decided.map(([key, approval]) => [key, withoutRole(approval)]))
  const lasts = entries.length > 0 || (all && ttlMs !== undefined)
  return {
    event: 'approved' as const,
    machines: taken.map(({ candidate, so }) => ({
      ...identify(candidate, so.name),
      wipe: so.wipe,
      ...(so.replaces === undefined ? {} : { replaces: so.replaces.name }),
    })),
    left: weighed.flatMap(({ candidate, so }) =>
      so.problem === undefined ? [] : [{ ...identify(candidate, so.name), why: so.problem.message }],
    ),
    listed: entries.length,
    ...(lasts ? { expires: new Date(at + expiresAt).toISOString() } : {}),
  }
}

/** Turns a machine away that waits. Errors: NOBODY_WAITS, USAGE, DISK_FULL. */
export async function refuse({ admission, approvals }: AdmissionDesk, params: Params) {
  const { name, code } = checkDocument(REQUEST, params)
  if (name === undefined && code === undefined) throw new MeshError('USAGE', 'say which machine is to be refused')
  const candidate = candidateOf(admission.candidates(), { name, code })
  const at = Date.now()
  await approvals.put([[`id:${candidate.id}`, { decision: 'refuse', at, expiresAt: at + REFUSAL_MS }]])
  return { event: 'refused' as const, machines: [identify(candidate, candidate.weighed.name)] }
}

function isApprovedAlready({ decision, weighed }: Candidate): boolean {
  return decision === 'approved' && weighed.problem === undefined
}

function identify({ code, id }: Candidate, name: string): { name: string; code: string; id: string } {
  return { name, code, id }
}

/** Whoever is approved becomes a lab machine, so no role is kept. */
function withoutRole({ decision, at, expiresAt, name, site, group, wipe, replaces }: Approval): Approval {
  return { decision, at, expiresAt, name, site, group, wipe, replaces }
}
