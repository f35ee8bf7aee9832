import { MAX_FACT_BYTES, MAX_MAC_ADDRESSES, MAX_TOLD_DISKS } from './constants.ts'
import type { Digest } from './digest.ts'
import { violation, type WireReader } from './wire-reader.ts'
import { given, limited, required } from './wire-runs.ts'
import type { WireWriter } from './wire-writer.ts'

/** The messages by which a machine without a token asks to be enrolled, and how each is written and read. */

/** One disk that a machine has, in its own words. */
export interface ToldDisk {
  /** As the kernel names it: `nvme0n1`. */
  readonly name: string
  /** Bytes. */
  readonly size: number
  /** Empty if it is not known. */
  readonly model: string
}

/**
 * What a machine says of itself when it asks to be enrolled. Nothing of it is proven. Texts have at most MAX_FACT_BYTES and no control
 * characters; they are empty where nothing is known.
 */
export interface MachineFacts {
  /** What it would like to be called. */
  readonly name: string
  /** Addresses of its network cards, as in the member list; at most MAX_MAC_ADDRESSES. */
  readonly mac: readonly string[]
  /** Maker and model of the computer. */
  readonly model: string
  /** Serial number of the computer. */
  readonly serial: string
  /** Bytes; 0 if it is not known. */
  readonly memory: number
  /** At most MAX_TOLD_DISKS. */
  readonly disks: readonly ToldDisk[]
  /** Path of the disk that is to be restored; empty if it has not chosen one. */
  readonly disk: string
  /** What that disk holds, in words; empty if it holds nothing. */
  readonly holds: string
}

/**
 * What becomes of a machine that asks to be enrolled; its number on the wire is its place here. `proven`: it has told nothing of itself
 * yet. `approved`: it may enrol. `later`: the master has no room or no time now.
 */
export const ENROL_STATES = ['proven', 'waiting', 'approved', 'enrolled', 'refused', 'later'] as const
/** One of {@link ENROL_STATES}. */
type EnrolState = (typeof ENROL_STATES)[number]

/** What such a machine asks. */
export interface EnrolRequest {
  readonly type: 'enrol-request'
  readonly siteId: Digest
  /** Absent: the machine only wants to know whether this is the master. */
  readonly facts?: MachineFacts | undefined
  /** Make it a member, if it is approved. Without this it only asks. */
  readonly enrol?: boolean | undefined
}

/** What the master answers. */
export interface EnrolReply {
  readonly type: 'enrol-reply'
  readonly error?: { readonly code: string; readonly message: string } | undefined
  readonly state: EnrolState
  /** Names of the site and the group that it stands in, and of the machine, as the master has decided them; absent before. */
  readonly site?: string | undefined
  readonly group?: string | undefined
  readonly name?: string | undefined
  /** What its disk holds may be destroyed. */
  readonly wipe?: boolean | undefined
  /** Ask again after so many milliseconds. */
  readonly waitMs?: number | undefined
  /** Who vouches that this is the master, by a key of the site, and the signature. */
  readonly proof?: { readonly by: string; readonly signature: string } | undefined
  /** Why an approval that there is does not let it in, for people. */
  readonly why?: string | undefined
}

/** Writes the question. */
export function encodeEnrolRequest(w: WireWriter, m: EnrolRequest): void {
  w.bytes(1, m.siteId)
  if (m.facts !== undefined) w.group(2, m.facts, encodeFacts)
  if (m.enrol === true) w.uint(3, 1)
}

/** Reads the question. Errors: PROTOCOL_VIOLATION. */
export function readEnrolRequest(r: WireReader): EnrolRequest {
  let siteId: Digest = new Uint8Array()
  let facts: MachineFacts | undefined
  let enrol = 0
  r.fields({
    1: () => (siteId = r.digest()),
    2: () => (facts = readFacts(r.nested())),
    3: () => (enrol = r.uint(1)),
  })
  required(siteId, 'enrol request without a site')
  return { type: 'enrol-request', siteId, ...given({ facts, enrol: enrol === 1 ? true : undefined }) }
}

/** Writes the answer. */
export function encodeEnrolReply(w: WireWriter, m: EnrolReply): void {
  w.text(1, m.error?.code ?? '')
  w.text(2, m.error?.message ?? '')
  w.uint(3, ENROL_STATES.indexOf(m.state))
  w.text(4, m.site ?? '')
  w.text(5, m.group ?? '')
  w.text(6, m.name ?? '')
  w.uint(7, m.wipe === true ? 1 : 0)
  w.uint(8, m.waitMs ?? 0)
  w.text(9, m.proof?.by ?? '')
  w.text(10, m.proof?.signature ?? '')
  w.text(11, m.why ?? '')
}

/** Reads the answer. Errors: PROTOCOL_VIOLATION. */
export function readEnrolReply(r: WireReader): EnrolReply {
  let [code, message, site, group, name, by, signature, why] = ['', '', '', '', '', '', '', '']
  let [state, wipe, waitMs] = [0, 0, 0]
  r.fields({
    1: () => (code = r.text()),
    2: () => (message = r.text()),
    3: () => (state = r.uint(ENROL_STATES.length - 1)),
    4: () => (site = r.text()),
    5: () => (group = r.text()),
    6: () => (name = r.text()),
    7: () => (wipe = r.uint(1)),
    8: () => (waitMs = r.uint()),
    9: () => (by = r.text()),
    10: () => (signature = r.text()),
    11: () => (why = r.text()),
  })
  const told = {
    error: code === '' ? undefined : { code, message },
    site: site || undefined,
    group: group || undefined,
    name: name || undefined,
    wipe: wipe === 1 ? true : undefined,
    waitMs: waitMs || undefined,
    proof: by === '' ? undefined : { by, signature },
    why: why || undefined,
  }
  return { type: 'enrol-reply', state: ENROL_STATES[state]!, ...given(told) }
}

function encodeFacts(w: WireWriter, facts: MachineFacts): void {
  w.text(1, facts.name)
  for (const address of facts.mac) w.text(2, address)
  w.text(3, facts.model)
  w.text(4, facts.serial)
  w.uint(5, facts.memory)
  for (const disk of facts.disks) w.group(6, disk, encodeDisk)
  w.text(7, facts.disk)
  w.text(8, facts.holds)
}

function readFacts(r: WireReader): MachineFacts {
  let [name, model, serial, disk, holds] = ['', '', '', '', '']
  let memory = 0
  const mac: string[] = []
  const disks: ToldDisk[] = []
  r.fields({
    1: () => (name = readFact(r)),
    2: () => limited(mac, MAX_MAC_ADDRESSES).push(readFact(r)),
    3: () => (model = readFact(r)),
    4: () => (serial = readFact(r)),
    5: () => (memory = r.uint(Number.MAX_SAFE_INTEGER)),
    6: () => limited(disks, MAX_TOLD_DISKS).push(readDisk(r.nested())),
    7: () => (disk = readFact(r)),
    8: () => (holds = readFact(r)),
  })
  return { name, mac, model, serial, memory, disks, disk, holds }
}

function encodeDisk(w: WireWriter, disk: ToldDisk): void {
  w.text(1, disk.name)
  w.uint(2, disk.size)
  w.text(3, disk.model)
}

function readDisk(r: WireReader): ToldDisk {
  let [name, model] = ['', '']
  let size = 0
  r.fields({
    1: () => (name = readFact(r)),
    2: () => (size = r.uint(Number.MAX_SAFE_INTEGER)),
    3: () => (model = readFact(r)),
  })
  return { name, size, model }
}

/** These texts end on terminals. */
function readFact(r: WireReader): string {
  const fact = r.text()
  if (Buffer.byteLength(fact) > MAX_FACT_BYTES || /\p{C}/u.test(fact)) throw violation('a fact is too long, or no text')
  return fact
}
