import { setTimeout as sleep } from 'node:timers/promises'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import { RETRY_MAX_MS, RETRY_MIN_MS } from '../limits.ts'
import type { LocalFacts } from '../local-facts.ts'
import type { PeerLedger } from '../peer-ledger.ts'
import { PeerSession, type SessionEvents } from './session.ts'
import type { FindImage, SwarmEvents } from './swarm-options.ts'

interface SessionsOptions<Ticket> {
  /** Opens an exchange stream to a connected peer. */
  readonly open: (peerId: string) => Promise<FrameStream>
  readonly local: () => LocalFacts
  readonly imageOf: FindImage
  readonly ledger: PeerLedger
  readonly events: SessionEvents<Ticket>
  readonly now: () => number
  /** A session is open; told once. */
  readonly opened: (session: PeerSession<Ticket>) => void
  /** A session that was open is over; told once. */
  readonly ended: (session: PeerSession<Ticket>) => void
  readonly onBan?: SwarmEvents['onBan'] | undefined
}

/** A connected peer; one entry lasts from one `add` to the next `remove`. */
interface PeerEntry<Ticket> {
  session: PeerSession<Ticket> | undefined
}

/** Keeps a session open with every connected peer that is not banned. */
export class Sessions<Ticket> {
  readonly #options: SessionsOptions<Ticket>
  readonly #peers = new Map<string, PeerEntry<Ticket>>()
  #closed = false

  constructor(options: SessionsOptions<Ticket>) {
    this.#options = options
  }

  /** The sessions that are open. */
  all(): PeerSession<Ticket>[] {
    return [...this.#peers.values()].map((entry) => entry.session).filter((session) => session !== undefined)
  }

  /** Whether a session with a peer is open. */
  has(peerId: string): boolean {
    return this.#peers.get(peerId)?.session !== undefined
  }

  /** The open session with a peer. */
  of(peerId: string): PeerSession<Ticket> | undefined {
    return this.#peers.get(peerId)?.session
  }

  /** A member was connected: opens a session, and opens it again after a pause if it breaks, until it is removed. */
  add(peerId: string): void {
    if (this.#closed || this.#peers.has(peerId) || this.#options.ledger.isBanned(peerId)) return
    const entry: PeerEntry<Ticket> = { session: undefined }
    this.#peers.set(peerId, entry)
    void this.#keep(peerId, entry)
  }

  /** A member was disconnected. */
  remove(peerId: string): void {
    const session = this.#peers.get(peerId)?.session
    this.#peers.delete(peerId)
    session?.abort(new MeshError('PEERS_UNREACHABLE', `${peerId} was disconnected`))
  }

  /**
   * Removes a peer, and does not add it again as long as it is banned. `why`: the rest of a sentence that begins with its name; or a sentence that begins with its
   * id, or says what is wrong with a document.
   */
  ban(peerId: string, offence: 'wrong' | 'violation', why: string): void {
    const { ledger, onBan } = this.#options
    if (ledger.isRefused(peerId) || (offence === 'wrong' && ledger.isBanned(peerId))) return
    const isBegun = why.startsWith(peerId) || offence === 'wrong'
    const reason = isBegun ? why.replace(peerId, '').trim() : `broke the protocol: ${why}`
    const until = ledger.ban(peerId, offence, reason)
    this.remove(peerId)
    onBan?.(peerId, reason, until)
  }

  close(): void {
    this.#closed = true
    for (const peerId of [...this.#peers.keys()]) this.remove(peerId)
  }

  async #keep(peerId: string, entry: PeerEntry<Ticket>): Promise<void> {
    const { open, local, imageOf, events, now, opened, ledger } = this.#options
    for (let pauseMs = RETRY_MIN_MS; this.#isWelcome(peerId, entry); pauseMs = Math.min(pauseMs * 2, RETRY_MAX_MS)) {
      try {
        const stream = await open(peerId)
        const session = await PeerSession.open<Ticket>(stream, local(), {
          events,
          now,
          imageOf,
          doubtful: ledger.isDoubtful(peerId),
        })
        if (!this.#isWelcome(peerId, entry)) {
          session.abort(new MeshError('PEERS_UNREACHABLE', `${peerId} was disconnected`))
          return
        }
        entry.session = session
        pauseMs = RETRY_MIN_MS
        try {
          opened(session)
          await session.run()
        } finally {
          this.#lose(session)
        }
      } catch (error) {
        // A peer that breaks the protocol is not asked again; one that is gone may come back.
        if (isMeshError(error, 'PROTOCOL_VIOLATION')) this.ban(peerId, 'violation', error.message)
        else if (isMeshError(error, 'FORMAT_NEWER')) this.ban(peerId, 'wrong', error.message)
      }
      // Nobody waits for this pause, so it must not keep the process alive.
      await sleep(pauseMs, undefined, { ref: false })
    }
  }

  #isWelcome(peerId: string, entry: PeerEntry<Ticket>): boolean {
    return !this.#closed && this.#peers.get(peerId) === entry && !this.#options.ledger.isBanned(peerId)
  }

  #lose(session: PeerSession<Ticket>): void {
    const entry = this.#peers.get(session.peerId)
    if (entry?.session === session) entry.session = undefined
    this.#options.ended(session)
  }
}
