import { METADATA_PROTOCOL, REQUEST_DEADLINE_MS } from '../../../protocol/constants.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import type { MetadataVersions } from '../../../protocol/message-parts.ts'
import { RETRY_MIN_MS } from '../../exchange/limits.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import { MTU_HINT } from '../../net/mtu-hint.ts'
import type { TrustStore } from '../../trust/trust-store.ts'
import { DOUBT_MAX_MS } from './limits.ts'

/** Serves metadata files to one peer until it closes the stream (docs/PROTOCOL.md, metadata protocol). */
export async function serveMetadata(
  stream: FrameStream,
  trust: Pick<TrustStore, 'file'>,
  sent?: (bytes: number) => void,
): Promise<void> {
  for await (const message of stream.messages()) {
    if (message.type !== 'file-request') {
      throw new MeshError('PROTOCOL_VIOLATION', `peer ${stream.peerId} sent ${message.type} on the metadata protocol`)
    }
    const payload = await trust.file(message.name)
    sent?.(payload?.byteLength ?? 0)
    await stream.send({ type: 'file-reply', found: payload !== undefined, payload: payload ?? new Uint8Array() })
  }
}

/** What a stranger may read: the site's root metadata, which hold public keys and nothing else. */
export function rootsOf(trust: Pick<TrustStore, 'file'>): Pick<TrustStore, 'file'> {
  return { file: async (name) => (/^\d{1,10}\.root\.json$/.test(name) ? trust.file(name) : undefined) }
}

/**
 * Runs `use` with a function that fetches metadata files from a peer, one at a time over one stream.
 * Errors: REQUEST_TIMEOUT when the peer does not answer, PEERS_UNREACHABLE, PROTOCOL_VIOLATION.
 */
export async function withMetadataFrom<T>(
  open: (protocol: string) => Promise<FrameStream>,
  use: (fetch: (name: string) => Promise<Uint8Array | undefined>) => Promise<T>,
): Promise<T> {
  const stream = await open(METADATA_PROTOCOL)
  const replies = stream.messages()[Symbol.asyncIterator]()
  const fetch = async (name: string): Promise<Uint8Array | undefined> => {
    const askedAt = performance.now()
    const late = new MeshError('REQUEST_TIMEOUT', `peer ${stream.peerId} did not send ${name} in time; ${MTU_HINT}`)
    const timer = setTimeout(() => stream.abort(late), REQUEST_DEADLINE_MS)
    try {
      await stream.send({ type: 'file-request', name })
      const reply = await replies.next()
      if (reply.done === true || reply.value.type !== 'file-reply') {
        throw new MeshError('PROTOCOL_VIOLATION', `peer ${stream.peerId} did not answer the request for ${name}`)
      }
      return reply.value.found ? reply.value.payload : undefined
    } catch (error) {
      // The peer gives up as well, when its answer was not taken.
      const waitedMs = performance.now() - askedAt
      throw isMeshError(error, 'PEERS_UNREACHABLE') && waitedMs > REQUEST_DEADLINE_MS / 2 ? late : error
    } finally {
      clearTimeout(timer)
    }
  }
  try {
    return await use(fetch)
  } finally {
    stream.abort(new MeshError('INTERRUPTED', 'metadata exchange done'))
  }
}

/**
 * Keeps the trusted metadata as new as the newest that any connected peer has. One refresh runs at a time, for the newest claim first.
 * The metadata's own signatures prove what a peer offers, so any member will do.
 */
export class MetadataSync {
  readonly #trust: TrustStore
  readonly #open: (peerId: string, protocol: string) => Promise<FrameStream>
  readonly #warn: (text: string) => void
  readonly #nameOf: (peerId: string) => string
  readonly #received: (peerId: string, bytes: number) => void
  readonly #now: () => number
  readonly #claims = new Map<string, MetadataVersions>()
  /** Peers whose claim came to nothing, and until when they are not believed. */
  readonly #doubted = new Map<string, { until: number; pauseMs: number }>()
  #running: Promise<void> = Promise.resolve()
  /** For the first doubt that ends, of those whose peers claim newer metadata. */
  #later: NodeJS.Timeout | undefined
  #stopped = false
  /** That two machines sign for the site, if a peer has proven it; METADATA_FORKED. */
  fork: MeshError | undefined

  constructor(options: {
    trust: TrustStore
    open: (peerId: string, protocol: string) => Promise<FrameStream>
    warn: (text: string) => void
    nameOf: (peerId: string) => string
    /** Bytes of metadata came from a peer. */
    received?: (peerId: string, bytes: number) => void
    now?: () => number
  }) {
    this.#trust = options.trust
    this.#open = options.open
    this.#warn = options.warn
    this.#nameOf = options.nameOf
    this.#received = options.received ?? (() => undefined)
    this.#now = options.now ?? (() => performance.now())
  }

  /** Notes which versions a peer says it has. Resolves when nothing newer that was claimed is left to fetch. */
  heard(peerId: string, versions: MetadataVersions): Promise<void> {
    this.#claims.set(peerId, versions)
    if (this.#differs(versions)) this.#running = this.#running.then(() => this.#compare(peerId, versions))
    // Queued even behind a run that is about to end, which may have looked at the claims already.
    this.#running = this.#running.then(() => this.#run())
    return this.#running
  }

  /** Asks a peer that has claimed nothing. It is no fault if the peer has nothing newer, or cannot be asked. */
  ask(peerId: string): Promise<void> {
    this.#running = this.#running.then(async () => {
      await this.#refreshFrom(peerId).catch(() => false)
    })
    return this.#running
  }

  /** Resolves when no refresh is under way. */
  async settled(): Promise<void> {
    await this.#running
  }

  /** A peer is not connected any more: what it claimed cannot be fetched from it. */
  gone(peerId: string): void {
    this.#claims.delete(peerId)
  }

  /** Asks nobody any more. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#later)
  }

  async #run(): Promise<void> {
    for (;;) {
      const peerId = this.#newest()
      if (peerId === undefined) return this.#askLater()
      this.#claims.delete(peerId)
      try {
        if (await this.#refreshFrom(peerId)) this.#doubted.delete(peerId)
        else this.#doubt(peerId)
      } catch (error) {
        this.#doubt(peerId)
        if (isMeshError(error, 'METADATA_FORKED')) {
          this.#tellFork(new MeshError('METADATA_FORKED', `${error.message}, as ${this.#nameOf(peerId)} proves`))
          continue
        }
        const why = error instanceof Error ? error.message : String(error)
        this.#warn(`metadata of ${this.#nameOf(peerId)} is not used: ${why}`)
      }
    }
  }

  /** A peer may say nothing more than what it said while it was doubted: it is asked when the doubt ends. */
  #askLater(): void {
    clearTimeout(this.#later)
    const ends = [...this.#claims.keys()].flatMap((peerId) => this.#doubted.get(peerId)?.until ?? [])
    if (ends.length === 0 || this.#stopped) return
    const again = (): void => {
      this.#running = this.#running.then(() => this.#run())
    }
    this.#later = setTimeout(again, Math.max(0, Math.min(...ends) - this.#now())).unref()
  }

  #refreshFrom(peerId: string): Promise<boolean> {
    return withMetadataFrom(
      (protocol) => this.#open(peerId, protocol),
      (fetch) =>
        this.#trust.refresh(async (name) => {
          const file = await fetch(name)
          this.#received(peerId, file?.byteLength ?? 0)
          return file
        }),
    )
  }

  /** Whether a peer has other metadata of the version that is trusted here. */
  #differs({ timestamp, head }: MetadataVersions): boolean {
    const own = this.#trust.view()
    return head !== undefined && timestamp === own.versions.timestamp && head !== own.head
  }

  /** Asks a peer for its timestamp role, and tells if that proves that two machines sign for the site. */
  async #compare(peerId: string, versions: MetadataVersions): Promise<void> {
    if (!this.#differs(versions) || (this.#doubted.get(peerId)?.until ?? 0) > this.#now()) return
    const open = (protocol: string): Promise<FrameStream> => this.#open(peerId, protocol)
    const file = await withMetadataFrom(open, (fetch) => fetch('timestamp.json')).catch(() => undefined)
    this.#doubt(peerId)
    if (file === undefined || !(await this.#trust.provesFork(file))) return
    const what = `version ${versions.timestamp} of the signed metadata was signed twice, with other content`
    this.#tellFork(new MeshError('METADATA_FORKED', `${what}, as ${this.#nameOf(peerId)} proves`))
  }

  /** Told once while this program runs: who has which of the two may change all the time. */
  #tellFork(error: MeshError): void {
    if (this.fork === undefined) this.#warn(`${error.message}. ${error.advice}`)
    this.fork ??= error
  }

  /** Asks a peer that claims what it does not have ever less often, so that it cannot keep this machine from the others. */
  #doubt(peerId: string): void {
    const pauseMs = Math.min((this.#doubted.get(peerId)?.pauseMs ?? RETRY_MIN_MS / 2) * 2, DOUBT_MAX_MS)
    this.#doubted.set(peerId, { until: this.#now() + pauseMs, pauseMs })
  }

  /** The peer with the newest claim beyond what is trusted here. */
  #newest(): string | undefined {
    const own = this.#trust.view().versions
    let best: string | undefined
    let bestVersions: MetadataVersions = own
    for (const [peerId, versions] of this.#claims) {
      if ((this.#doubted.get(peerId)?.until ?? 0) > this.#now()) continue
      if (isNewer(versions, bestVersions)) {
        best = peerId
        bestVersions = versions
      } else if (!isNewer(versions, own)) this.#claims.delete(peerId)
    }
    return best
  }
}

function isNewer(a: MetadataVersions, b: MetadataVersions): boolean {
  return a.timestamp > b.timestamp || a.root > b.root
}
