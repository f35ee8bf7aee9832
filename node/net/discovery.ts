import { randomBytes } from 'node:crypto'
import { ANSWER_AGAIN_MS, ANSWER_JITTER_MS, DISCOVERY_INTERVAL_MS } from './limits.ts'
import { decodeMdns, encodeAnswer, encodeQuestion } from './mdns-message.ts'
import { Multicast, type MulticastPlace, multicastPlaces } from './multicast.ts'
import type { NetworkWatch } from './network-watch.ts'
import { isInSubnet } from './own-addresses.ts'
import { parseTcpAddress } from './tcp-address.ts'

/** A node of the site was seen on the network. */
export type DiscoveryListener = (peerId: string, addresses: string[]) => void

interface DiscoveryOptions {
  /** Nodes that use the same one find each other: `mesh-12345678.local`. */
  readonly serviceTag: string
  readonly peerId: string
  /** Where this node is reached now. */
  readonly addresses: () => readonly string[]
  readonly watch: NetworkWatch
  /** Called for every answer that is heard, also of a node that is known already and has moved. Anybody on the subnet can answer. */
  readonly found: DiscoveryListener
  /** Called with why multicast DNS is not heard, once for each reason. */
  readonly warn: (text: string) => void
}

const FAMILIES = ['ip4', 'ip6'] as const

/**
 * Finds nodes by multicast DNS (https://github.com/libp2p/specs/blob/master/discovery/mdns.md) on every network card, also those
 * that come later, over IPv4 and IPv6, with or without a route. The library of libp2p sends on one card only, the one of the
 * default route. Each node asks every DISCOVERY_INTERVAL_MS, and everybody hears the answers.
 */
export class Discovery {
  readonly #options: DiscoveryOptions
  /** By it a node knows its own answers. */
  readonly #name = randomBytes(16).toString('hex')
  #groups: Multicast[] = []
  #places: MulticastPlace[] = []
  /** Answers that are due, by place, and when the last one was sent. */
  readonly #due = new Map<string, NodeJS.Timeout>()
  readonly #answeredAt = new Map<string, number>()
  readonly #warned = new Set<string>()
  readonly #timer: NodeJS.Timeout
  /** Openings of sockets, one after the other. */
  #opening: Promise<void>
  #stopped = false

  constructor(options: DiscoveryOptions) {
    this.#options = options
    this.#opening = this.#open()
    options.watch.onChange(() => {
      this.#opening = this.#opening.then(() => this.#open())
    })
    this.#timer = setInterval(() => this.#ask(), DISCOVERY_INTERVAL_MS).unref()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    for (const timer of this.#due.values()) clearTimeout(timer)
    await this.#opening
    await this.#close()
  }

  /** Sockets for the cards that there are now. A node that has moved says so at once. */
  async #open(): Promise<void> {
    await this.#close()
    if (this.#stopped) return
    this.#places = multicastPlaces(this.#options.watch.addresses)
    const families = FAMILIES.filter((family) => this.#places.some((place) => place.family === family))
    const opened = await Promise.all(families.map((family) => this.#openFamily(family)))
    this.#groups = opened.filter((group) => group !== undefined)
    for (const place of this.#places) this.#answer(place)
    this.#ask()
  }

  async #openFamily(family: 'ip4' | 'ip6'): Promise<Multicast | undefined> {
    const its = this.#places.filter((place) => place.family === family)
    try {
      return await Multicast.open(family, its, (data, from) => this.#heard(family, data, from))
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      const text = `machines of the site are not found by multicast DNS: ${why}`
      if (!this.#warned.has(text)) this.#options.warn(text)
      this.#warned.add(text)
      return undefined
    }
  }

  async #close(): Promise<void> {
    const groups = this.#groups
    this.#groups = []
    await Promise.all(groups.map((group) => group.close()))
  }

  #ask(): void {
    this.#send(encodeQuestion(this.#options.serviceTag), this.#places)
  }

  #send(data: Uint8Array, places: readonly MulticastPlace[]): void {
    for (const place of places) this.#groups.find(({ family }) => family === place.family)?.send(data, place)
  }

  #heard(family: 'ip4' | 'ip6', data: Buffer, from: string): void {
    const message = decodeMdns(this.#options.serviceTag, data)
    if (message?.type === 'question') for (const place of this.#placesOf(family, from)) this.#answerSoon(place)
    if (message?.type !== 'answer' || message.name === this.#name) return
    this.#options.found(message.peerId, message.addresses)
  }

  /** Where a sender is reached by multicast; everywhere if that is not clear. */
  #placesOf(family: 'ip4' | 'ip6', from: string): MulticastPlace[] {
    const [host = '', zone] = from.split('%')
    const { addresses } = this.#options.watch
    const card = zone ?? addresses.find((own) => isInSubnet(own, family, host))?.card
    const its = this.#places.filter((place) => place.family === family)
    const known = its.filter((place) => place.card === card)
    return known.length > 0 ? known : its
  }

  /** One answer serves all who ask within a second, and not all nodes answer at the same moment (RFC 6762, section 6). */
  #answerSoon(place: MulticastPlace): void {
    const key = `${place.card} ${place.family}`
    if (this.#due.has(key)) return
    const [min, max] = ANSWER_JITTER_MS
    const again = (this.#answeredAt.get(key) ?? Number.NEGATIVE_INFINITY) + ANSWER_AGAIN_MS - performance.now()
    const waitMs = Math.max(min + Math.random() * (max - min), again)
    this.#due.set(key, setTimeout(() => this.#answer(place), waitMs).unref())
  }

  #answer(place: MulticastPlace): void {
    const key = `${place.card} ${place.family}`
    clearTimeout(this.#due.get(key))
    this.#due.delete(key)
    this.#answeredAt.set(key, performance.now())
    const { serviceTag, peerId, addresses, watch } = this.#options
    const here = watch.addresses.filter(({ card }) => card === place.card)
    const isHere = (text: string): boolean => {
      const host = parseTcpAddress(text)?.host
      return here.some(({ address }) => address === host)
    }
    // Those of the card first: not all of them may fit.
    const sorted = [...addresses()].sort((a, b) => Number(isHere(b)) - Number(isHere(a)))
    if (sorted.length > 0) this.#send(encodeAnswer(serviceTag, this.#name, peerId, sorted), [place])
  }
}
