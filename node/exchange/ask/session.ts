import { Bitmap } from '../../../protocol/bitmap.ts'
import { DIGEST_SIZE_BYTES, HELLO_DEADLINE_MS, MAX_WANTS_PER_MESSAGE } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { encodeGranules, wantedBytes } from '../../../protocol/granules.ts'
import type { MetadataVersions, PeerAddresses, WantRequest } from '../../../protocol/message-parts.ts'
import type { Message } from '../../../protocol/messages.ts'
import type { RangeSet } from '../../../protocol/ranges.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import { BUSY_RETRY_MAX_MS } from '../limits.ts'
import { checkHello, type Hello, helloOf, type LocalFacts, VERSION_FETCHING } from '../local-facts.ts'
import { type ArrivedBlock, CompressedLink } from './compressed-link.ts'
import { HeldImages } from './held-images.ts'
import { ASK_TOGETHER } from './limits.ts'
import { NewsBudget } from './news-budget.ts'
import { PeerWindow } from './peer-window.ts'
import { Standing } from './standing.ts'
import type { FindImage } from './swarm-options.ts'

/** What a session reports; answers name the request they belong to. */
export interface SessionEvents<Ticket> {
  block(session: PeerSession<Ticket>, ticket: Ticket, content: ArrivedBlock): void
  missing(session: PeerSession<Ticket>, ticket: Ticket): void
  busy(session: PeerSession<Ticket>, ticket: Ticket): void
  /** The peer gained and lost blocks of an image that it holds (parts of). */
  have(session: PeerSession<Ticket>, root: string, gained: RangeSet, lost: RangeSet): void
  /** The peer holds other images than before. */
  holds(session: PeerSession<Ticket>): void
  versions(peerId: string, versions: MetadataVersions): void
  peers(peerId: string, list: readonly PeerAddresses[]): void
  /** What all peers together send, bytes per second. */
  totalRate(): number
}

/** What a session has of the machine around it. */
interface SessionParts<Ticket> {
  readonly events: SessionEvents<Ticket>
  readonly now: () => number
  readonly imageOf: FindImage
  /** Whether the peer was found silent before. */
  readonly doubtful: boolean
}

interface OpenRequest<Ticket> {
  readonly ticket: Ticket
  /** Bytes of content that are asked for. */
  readonly size: number
  readonly askedAt: number
}

/**
 * The client's end of one exchange stream: keeps what the peer holds, numbers and pipelines requests within the credit
 * the peer granted, and hands answers to their owner. `Ticket` is whatever the owner wants back with an answer.
 */
export class PeerSession<Ticket> {
  readonly peerId: string
  readonly name: string
  /** When the peer last delivered something, or was first asked after being idle. */
  #progressAt: number
  #stalled = false
  #over = false
  readonly #window = new PeerWindow()
  /** What is known of the link to the peer, and so whether it should compress. */
  readonly #link = new CompressedLink()
  readonly #stream: FrameStream
  readonly #events: SessionEvents<Ticket>
  readonly #now: () => number
  readonly #credit: number
  readonly #version: number
  readonly #replies: AsyncGenerator<Message>
  readonly #requests = new Map<number, OpenRequest<Ticket>>()
  readonly #held: HeldImages
  readonly #standing: Standing
  readonly #news: NewsBudget
  #putOff = false
  #openBytes = 0
  #nextId = 1
  /** When the peer wants to be asked again. */
  #busyUntil = 0
  #unsent: WantRequest[] = []
  /** Searches that the peer has not answered, by their number. */
  readonly #searches = new Map<number, { count: number; resolve: (found: Bitmap) => void }>()

  private constructor(
    stream: FrameStream,
    replies: AsyncGenerator<Message>,
    hello: Hello,
    { events, now, imageOf, doubtful }: SessionParts<Ticket>,
  ) {
    this.#stream = stream
    this.#replies = replies
    this.#events = events
    this.#now = now
    this.#held = new HeldImages(imageOf, (what) => this.#violation(what))
    this.#credit = hello.creditBytes
    this.#version = hello.versionMax
    this.peerId = stream.peerId
    this.name = hello.name
    this.#progressAt = now()
    this.#standing = new Standing(doubtful)
    this.#news = new NewsBudget(now())
    this.#held.replace(hello.held)
  }

  /** Exchanges hellos. Errors: PROTOCOL_VIOLATION, REQUEST_TIMEOUT. */
  static async open<Ticket>(
    stream: FrameStream,
    local: LocalFacts,
    parts: SessionParts<Ticket>,
  ): Promise<PeerSession<Ticket>> {
    const late = new MeshError('REQUEST_TIMEOUT', `${stream.peerId} did not say hello`)
    const timer = setTimeout(() => stream.abort(late), HELLO_DEADLINE_MS)
    try {
      await stream.send(helloOf(local))
      const replies = stream.messages()
      const first = await replies.next()
      const hello = checkHello(first.done === true ? undefined : first.value, stream.peerId, local)
      const session = new PeerSession(stream, replies, hello, parts)
      const { events } = parts
      events.versions(stream.peerId, hello.metadata)
      events.peers(stream.peerId, [{ id: stream.peerId, addresses: hello.addresses }])
      return session
    } catch (error) {
      stream.abort(error instanceof Error ? error : new Error(String(error)))
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  /** Handles what the peer sends until the stream ends; rejects if it ends in a fault. */
  async run(): Promise<void> {
    try {
      for await (const message of this.#replies) this.#handle(message)
    } catch (error) {
      this.#stream.abort(error instanceof Error ? error : new Error(String(error)))
      throw error
    } finally {
      this.#over = true
      for (const { count, resolve } of this.#searches.values()) resolve(new Bitmap(count))
    }
  }

  /**
   * Which of some blocks the peer can serve, whatever image it has them from: a bit for each of `digests`, 32 bytes each, at
   * most MAX_FINDS_PER_MESSAGE of them. None if the session ends before the peer has answered.
   */
  find(digests: Uint8Array): Promise<Bitmap> {
    const id = this.#nextId++
    const count = digests.byteLength / DIGEST_SIZE_BYTES
    return new Promise((resolve) => {
      this.#searches.set(id, { count, resolve })
      this.#post({ type: 'find', id, payload: digests })
    })
  }

  /** Blocks the peer holds of an image, or undefined if it does not hold that image at all. */
  held(root: string): Bitmap | undefined {
    return this.#held.of(root)
  }

  /** Whether the peer says to hold anything. */
  get holdsAny(): boolean {
    return !this.#held.isEmpty
  }

  /**
   * Other manifests are trusted now: what the peer has told of their images counts. If that is not all known, the session ends, and
   * the next one begins with it.
   */
  imagesChanged(): void {
    try {
      const known = this.#held.recogniseAll()
      if (known === undefined) this.abort(new MeshError('INTERRUPTED', `${this.peerId} is asked anew what it holds`))
      else if (known.length > 0) this.#events.holds(this)
    } catch (error) {
      this.#stream.abort(error as Error)
    }
  }

  /** Takes note that the peer does not have a block of an image after all. */
  forget(root: string, index: number): void {
    this.#held.forget(root, index)
  }

  /** Bytes of content that the peer is asked for and has not sent. */
  get openBytes(): number {
    return this.#openBytes
  }

  /** What the peer delivers, bytes per second, smoothed; 0 until measured. */
  get rate(): number {
    return this.#window.rate
  }

  /** Whether the stream has ended. */
  get isOver(): boolean {
    return this.#over
  }

  /** Whether the peer is asked for nothing, because it was silent for too long. */
  get isStalled(): boolean {
    return this.#stalled
  }

  /** Asks the peer for nothing more until it answers again. */
  stall(): void {
    this.#stalled = true
  }

  /** Milliseconds since the peer last delivered something, or was first asked after being idle. */
  silentMs(now: number): number {
    return now - this.#progressAt
  }

  /** Whether the peer delivers so little that nobody is to be spared because of it. */
  get isDoubtful(): boolean {
    return this.#standing.isDoubtful
  }

  /** Whether the peer put off what it was asked for, and has delivered nothing since. */
  get isPuttingOff(): boolean {
    return this.#putOff
  }

  /** Looks at what the peer has delivered. Returns whether its standing has changed. */
  lookAtStanding(now: number): boolean {
    return this.#standing.look(now, this.#openBytes > 0 || this.#putOff)
  }

  /** Takes the link to be slow, `bytesPerSecond`, until it is measured. */
  assumeSlow(bytesPerSecond: number): void {
    this.#link.assumeRate(bytesPerSecond)
    this.#window.beginSmall()
  }

  /** Bytes that the peer may be asked for now; none until it is worth a message. */
  room(): number {
    if (this.#stalled || this.#now() < this.#busyUntil) return 0
    const window = Math.min(this.#window.size, this.#credit)
    return this.#openBytes <= window * (1 - ASK_TOGETHER) ? window - this.#openBytes : 0
  }

  /**
   * Asks for some content, or for some granules of it; requests of one turn of the event loop travel together. Returns the
   * request's number.
   */
  ask(ticket: Ticket, want: Omit<WantRequest, 'id' | 'granules'>, granules: Bitmap | undefined): number {
    const id = this.#nextId++
    const size = wantedBytes(granules, want.size)
    const now = this.#now()
    if (this.#requests.size === 0) {
      this.#progressAt = now
      this.#window.begun(now)
    }
    this.#requests.set(id, { ticket, size, askedAt: now })
    this.#openBytes += size
    if (this.#unsent.length === 0) setImmediate(() => this.#sendUnsent())
    this.#unsent.push({ id, ...want, granules: encodeGranules(granules) })
    return id
  }

  cancel(id: number): void {
    if (this.#take(id) === undefined) return
    const unsent = this.#unsent.findIndex((want) => want.id === id)
    if (unsent !== -1) this.#unsent.splice(unsent, 1)
    else this.#post({ type: 'cancel', ids: [id] })
  }

  /** Tells what this machine fetches over the uplink, if the peer understands that. */
  tellFetching(message: Extract<Message, { type: 'fetching' }>): void {
    if (this.#version >= VERSION_FETCHING) this.#post(message)
  }

  /** The requests that are still open. */
  tickets(): Ticket[] {
    return [...this.#requests.values()].map((request) => request.ticket)
  }

  abort(error: Error): void {
    this.#stream.abort(error)
  }

  #handle(message: Message): void {
    if (message.type !== 'block' && this.#isNews(message) && !this.#news.take(message, this.#now()))
      throw this.#violation('more than anybody asked for')
    switch (message.type) {
      case 'block': {
        const request = this.#take(message.id)
        const now = this.#progress()
        // An answer to a request that was cancelled on its way is not a fault.
        if (request === undefined) {
          if (message.id >= this.#nextId) throw this.#violation('a block that was not asked for')
          return
        }
        this.#putOff = false
        this.#standing.delivered(message.payload.byteLength)
        this.#window.delivered(message.payload.byteLength, this.#openBytes, now - request.askedAt, now)
        if (message.payload.byteLength > request.size) throw this.#violation('more bytes than asked for')
        const content = this.#link.arrived(message, request.size)
        this.#events.block(this, request.ticket, content)
        break
      }
      case 'missing':
        this.#answered(message.ids, (ticket) => this.#events.missing(this, ticket))
        break
      case 'busy':
        this.#busyUntil = this.#now() + Math.min(message.retryAfterMs, BUSY_RETRY_MAX_MS)
        this.#putOff ||= message.ids.some((id) => this.#requests.has(id))
        this.#answered(message.ids, (ticket) => this.#events.busy(this, ticket))
        break
      case 'have':
        if (this.#held.change(toHex(message.root), message.gained, message.lost))
          this.#events.have(this, toHex(message.root), message.gained, message.lost)
        break
      case 'holds':
        this.#held.replace(message.held)
        this.#events.holds(this)
        break
      case 'found':
        this.#foundContent(message.id, message.found)
        break
      case 'announce':
        this.#events.versions(this.peerId, message.metadata)
        break
      case 'peers':
        this.#events.peers(this.peerId, message.peers)
        break
      default:
        throw this.#violation(`${message.type} from a server`)
    }
  }

  /** Answers to open requests and searches cost the peer nothing. */
  #isNews(message: Message): boolean {
    if (message.type === 'missing' || message.type === 'busy') return !message.ids.some((id) => this.#requests.has(id))
    return message.type !== 'found'
  }

  #foundContent(id: number, found: Uint8Array): void {
    const search = this.#searches.get(id)
    if (search === undefined) throw this.#violation('what nobody searched for')
    this.#searches.delete(id)
    const bits = new Bitmap(search.count)
    bits.load(0, found)
    search.resolve(bits)
  }

  #answered(ids: readonly number[], answer: (ticket: Ticket) => void): void {
    for (const id of ids) {
      const request = this.#take(id)
      if (request !== undefined) answer(request.ticket)
      else if (id >= this.#nextId) throw this.#violation('an answer to nothing')
    }
  }

  #take(id: number): OpenRequest<Ticket> | undefined {
    const request = this.#requests.get(id)
    if (request === undefined) return undefined
    this.#requests.delete(id)
    this.#openBytes -= request.size
    return request
  }

  #progress(): number {
    this.#progressAt = this.#now()
    this.#stalled = false
    return this.#progressAt
  }

  #sendUnsent(): void {
    const requests = this.#unsent
    this.#unsent = []
    const packFrom = this.#link.packFrom(this.#window.rate, this.#events.totalRate())
    for (let at = 0; at < requests.length; at += MAX_WANTS_PER_MESSAGE) {
      this.#post({ type: 'want', requests: requests.slice(at, at + MAX_WANTS_PER_MESSAGE), packFrom })
    }
  }

  #post(message: Message): void {
    this.#stream.send(message).catch((error: Error) => this.#stream.abort(error))
  }

  #violation(what: string): MeshError {
    return new MeshError('PROTOCOL_VIOLATION', `${this.peerId} sent ${what}`, { detail: { peer: this.peerId } })
  }
}
