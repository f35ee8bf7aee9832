import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { OwnAddress } from './own-addresses.ts'

/** UDP port and groups of multicast DNS (RFC 6762, section 3). */
const PORT = 5353
const GROUPS = { ip4: '224.0.0.251', ip6: 'ff02::fb' } as const
const HOPS = 255

/** A card that a group is joined on; one for each card and family. */
export interface MulticastPlace {
  readonly card: string
  readonly family: 'ip4' | 'ip6'
  /** As node:dgram names the card: one of its addresses for IPv4, `::%eth0` for IPv6. */
  readonly device: string
}

/** Where this machine speaks multicast DNS: on each card that has a link, whatever routes there are; on loopback if there is no other. */
export function multicastPlaces(own: readonly OwnAddress[]): MulticastPlace[] {
  const outside = own.filter(({ isLoopback }) => !isLoopback)
  const places = (outside.length > 0 ? outside : own).map(({ card, family, address }) => ({
    card,
    family,
    device: family === 'ip4' ? address : `::%${card}`,
  }))
  return [...Map.groupBy(places, ({ card, family }) => `${card} ${family}`).values()].map(([first]) => first!)
}

/** One socket of a family, which hears its group on several cards, and sends on each of them by name. */
export class Multicast {
  readonly #socket: Socket
  readonly family: 'ip4' | 'ip6'
  /** Sends one after the other: the card to send on is a property of the socket. */
  #sending: Promise<void> = Promise.resolve()
  #closed = false

  private constructor(family: 'ip4' | 'ip6', socket: Socket) {
    this.family = family
    this.#socket = socket
  }

  /** Joins the group on all places of the family. `heard`: data, and the sender's address, with `%card` if it is link-local. Errors: those of binding. */
  static async open(
    family: 'ip4' | 'ip6',
    places: readonly MulticastPlace[],
    heard: (data: Buffer, from: string) => void,
  ): Promise<Multicast> {
    const options = { reuseAddr: true, ipv6Only: family === 'ip6' }
    const socket = createSocket({ type: family === 'ip4' ? 'udp4' : 'udp6', ...options })
    socket.bind({ port: PORT, exclusive: true })
    await once(socket, 'listening').catch((error: unknown) => {
      socket.close()
      throw error
    })
    // A card may go at any moment; what cannot be sent on it is lost, as on the wire.
    socket.on('error', () => undefined)
    socket.on('message', (data, { address }) => heard(data, address))
    socket.setMulticastTTL(HOPS)
    for (const { device } of places) attempt(() => socket.addMembership(GROUPS[family], device))
    socket.unref()
    return new Multicast(family, socket)
  }

  /** Sends on one card. */
  send(data: Uint8Array, { device }: MulticastPlace): void {
    this.#sending = this.#sending.then(async () => {
      if (this.#closed || !attempt(() => this.#socket.setMulticastInterface(device))) return
      await new Promise<void>((resolve) => this.#socket.send(data, PORT, GROUPS[this.family], () => resolve()))
    })
  }

  /** Sends what is waiting, then closes. */
  async close(): Promise<void> {
    await this.#sending
    this.#closed = true
    this.#socket.close()
  }
}

/** Whether it worked: a card may be gone since it was listed. */
function attempt(act: () => void): boolean {
  try {
    act()
    return true
  } catch {
    return false
  }
}
