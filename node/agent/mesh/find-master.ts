import { JOIN_PROTOCOL, REQUEST_DEADLINE_MS } from '../../../protocol/constants.ts'
import { type Digest, toHex } from '../../../protocol/digest.ts'
import type { EnrolReply, EnrolRequest } from '../../../protocol/enrol-messages.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import type { MeshHost } from '../../net/host.ts'
import { checkMaster } from '../../trust/master-proof.ts'
import { knownCode } from './enrolment.ts'
import { CANDIDATES_AT_A_TIME, MAX_CANDIDATES } from './limits.ts'
import { withMetadataFrom } from './metadata-sync.ts'

/** The master of the site: proven, and connected. */
export interface FoundMaster {
  readonly peerId: string
  /** Where it was found. */
  readonly addresses: readonly string[]
}

/** Finds the master of a site of which nothing is known but its id: at addresses that were given, and by multicast DNS. */
export class MasterFinder {
  readonly #host: MeshHost
  readonly #siteId: Digest
  readonly #given: readonly string[]
  /** What a peer that is no master of this site was told about: each fault once. */
  readonly #warn: (text: string) => void
  readonly #warned = new Set<string>()
  readonly #seen = new Map<string, readonly string[]>()
  /** Why the last one was not the master; undefined if nobody answered yet. */
  fault: MeshError | undefined

  constructor(options: {
    readonly host: MeshHost
    readonly siteId: Digest
    /** Multiaddrs, with or without a peer id. */
    readonly addresses: readonly string[]
    readonly warn: (text: string) => void
  }) {
    this.#host = options.host
    this.#siteId = options.siteId
    this.#given = options.addresses
    this.#warn = options.warn
    // Anybody on the network can answer.
    options.host.onDiscover((peerId, addresses) => {
      if (this.#seen.has(peerId) || this.#seen.size < MAX_CANDIDATES) this.#seen.set(peerId, addresses)
    })
  }

  /** Asks everybody who may be the master once. Undefined if none is: {@link fault} says why. Errors: ADDRESS_INVALID. */
  async look(): Promise<FoundMaster | undefined> {
    this.fault = undefined
    for (const address of this.#given) {
      const found = await this.#try(address, async () => {
        const peerId = await this.#host.meet(address)
        await this.#prove(peerId)
        return { peerId, addresses: [address.replace(/\/p2p\/[^/]+$/, '')] }
      })
      if (found !== undefined) return found
    }
    const seen = [...this.#seen]
    for (let at = 0; at < seen.length; at += CANDIDATES_AT_A_TIME) {
      const some = seen.slice(at, at + CANDIDATES_AT_A_TIME)
      const tried = await Promise.all(some.map(([peerId, addresses]) => this.#trySeen(peerId, addresses)))
      const found = tried.find((one) => one !== undefined)
      if (found !== undefined) return found
    }
    return undefined
  }

  #trySeen(peerId: string, addresses: readonly string[]): Promise<FoundMaster | undefined> {
    return this.#try(addresses.join(', '), async () => {
      await this.#host.connect(peerId, addresses)
      await this.#prove(peerId)
      return { peerId, addresses }
    })
  }

  async #try(where: string, run: () => Promise<FoundMaster>): Promise<FoundMaster | undefined> {
    try {
      return await run()
    } catch (error) {
      if (!isMeshError(error) || error.code === 'ADDRESS_INVALID') throw error
      // Lab machines answer multicast DNS, too, and let no stranger in.
      const isNobody = error.code === 'PEERS_UNREACHABLE'
      const text = `whoever answers at ${where} is not the master of site ${toHex(this.#siteId).slice(0, 8)}: ${error.message}`
      if (!isNobody && !this.#warned.has(text)) this.#warn(text)
      if (!isNobody) this.#warned.add(text)
      if (this.fault === undefined || this.fault.code === 'PEERS_UNREACHABLE')
        this.fault = isNobody ? error : new MeshError('METADATA_INVALID', text, { cause: error })
      return undefined
    }
  }

  async #prove(master: string): Promise<void> {
    try {
      const { proof } = await askMaster(this.#host, master, { type: 'enrol-request', siteId: this.#siteId })
      if (proof === undefined) throw new MeshError('METADATA_INVALID', 'it does not prove that it is')
      const vouched = { siteId: this.#siteId, master, machine: this.#host.peerId }
      const open = (protocol: string) => this.#host.open(master, protocol)
      await withMetadataFrom(open, (fetch) => checkMaster(vouched, proof, fetch))
    } catch (error) {
      await this.#host.disconnect(master)
      throw error
    }
  }
}

/**
 * One question to a master that is connected. Errors: those that it answers, REQUEST_TIMEOUT, PEERS_UNREACHABLE, PROTOCOL_VIOLATION.
 */
export async function askMaster(host: MeshHost, peerId: string, request: EnrolRequest): Promise<EnrolReply> {
  const stream = await host.open(peerId, JOIN_PROTOCOL)
  const late = new MeshError('REQUEST_TIMEOUT', 'the master did not answer the request to be enrolled')
  const timer = setTimeout(() => stream.abort(late), REQUEST_DEADLINE_MS)
  try {
    await stream.send(request)
    for await (const message of stream.messages()) {
      if (message.type !== 'enrol-reply') break
      if (message.error === undefined) return message
      throw new MeshError(knownCode(message.error.code), message.error.message.replaceAll(/\p{C}/gu, '?'))
    }
    throw new MeshError('PROTOCOL_VIOLATION', 'the peer closed the request to be enrolled without an answer')
  } finally {
    clearTimeout(timer)
    stream.abort(new MeshError('INTERRUPTED', 'request done'))
  }
}
