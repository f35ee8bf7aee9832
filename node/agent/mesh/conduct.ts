import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { anyText, type Check, natural, object, optional, truth } from '../../../protocol/json-shape.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { SESSION_CREDIT_BYTES } from '../../exchange/limits.ts'
import type { Offender, PastConduct, PeerLedger } from '../../exchange/peer-ledger.ts'
import type { ClientFigures } from '../../exchange/serve/server.ts'
import { MAX_CONNECTIONS_PER_PEER, MAX_STREAMS_PER_PROTOCOL } from '../../net/limits.ts'
import type { Shelf } from '../../state/shelf.ts'
import { storedDocument } from '../../state/stored-document.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { KEEP_CONDUCT_MS } from './limits.ts'

/** What one member has of this machine. */
export interface MemberFigures extends Omit<ClientFigures, 'id'> {
  readonly name: string
  readonly connections: number
}

/** The most that one member may have of this machine: connections, streams of a protocol, bytes asked for and not answered. */
export type MemberMost = Pick<MemberFigures, 'connections' | 'streams' | 'openBytes'>

/** As this version has it. */
export const MEMBER_MOST: MemberMost = {
  connections: MAX_CONNECTIONS_PER_PEER,
  streams: MAX_STREAMS_PER_PROTOCOL,
  openBytes: SESSION_CREDIT_BYTES,
}

/** A member that is not asked until then, ISO 8601; `reason`: the rest of a sentence that begins with its name. */
export interface BannedMember {
  readonly name: string
  readonly until: string
  readonly reason: string
}

interface ConductOptions {
  readonly machine: Machine
  readonly ledger: PeerLedger
  readonly clients: () => readonly ClientFigures[]
  readonly connectionsTo: (peerId: string) => number
  readonly report: (event: AgentEvent) => void
}

/** How other members behave to this machine: told to people by name and in words, and remembered for a day. */
export class Conduct {
  readonly #options: ConductOptions
  /** What is stored of each peer, without the time, by peer id. */
  readonly #kept = new Map<string, string>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: ConductOptions) {
    this.#options = options
  }

  /** What each member that fetches from this machine has here. */
  clients(): MemberFigures[] {
    const { machine, clients, connectionsTo } = this.#options
    return clients().map(({ id, ...figures }) => {
      return { name: machine.nameOf(id), connections: connectionsTo(id), ...figures }
    })
  }

  /** Members that are not asked for anything at the moment, or not even let in. */
  banned(): BannedMember[] {
    const { machine, ledger } = this.#options
    return ledger.banned().map(({ id, until, reason }) => {
      return { name: machine.nameOf(id), until: new Date(until).toISOString(), reason }
    })
  }

  /** Members that cost this machine time since its command began. */
  offenders(): (Offender & { readonly name: string })[] {
    const { machine, ledger } = this.#options
    return ledger.offenders().map((one) => ({ ...one, name: machine.nameOf(one.id) }))
  }

  /** Begins with what earlier commands of this machine have remembered. From now on what is new is stored every KEEP_CONDUCT_MS. */
  async recall(): Promise<void> {
    const { machine, ledger } = this.#options
    this.#timer = setInterval(() => void this.#keep(), KEEP_CONDUCT_MS).unref()
    const shelf = shelfOf(machine)
    for await (const [peerId, past] of shelf.iterator())
      if (!machine.isMember(peerId) || !ledger.recall(peerId, past)) await shelf.del(peerId)
  }

  /** Remembers all for the next command, and ends. */
  async remember(): Promise<void> {
    clearInterval(this.#timer)
    this.#kept.clear()
    await this.#keep()
  }

  /** Stores what has changed. */
  async #keep(): Promise<void> {
    const { machine, ledger } = this.#options
    const shelf = shelfOf(machine)
    for (const [peerId, past] of ledger.remembered()) {
      const { at: _, ...rest } = past
      const text = JSON.stringify(rest)
      if (!machine.isMember(peerId) || this.#kept.get(peerId) === text) continue
      this.#kept.set(peerId, text)
      await shelf.put(peerId, past).catch(() => undefined)
    }
  }

  /** A peer was banned until then, Unix ms. A stranger makes a new key for each time that it is told of. */
  tellBan(peerId: string, reason: string, until: number): void {
    const { machine, report } = this.#options
    if (!machine.isMember(peerId)) return
    const name = machine.nameOf(peerId)
    const text = `${name} ${reason}; it is not asked again before ${formatTime(until)}`
    report({ type: 'warning', text })
  }
}

const isPast: Check<PastConduct> = object({
  at: natural(),
  offences: natural(),
  bans: natural(),
  banned: optional(object({ until: natural(), refused: truth, reason: anyText(MAX_TEXT_BYTES) })),
})

/** How peers behaved lately, by peer id. */
function shelfOf(machine: Machine): Shelf<PastConduct> {
  return machine.state.hints('conduct', storedDocument('how a peer behaved', isPast))
}
