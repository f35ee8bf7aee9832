import { createSocket } from 'node:dgram'
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import { WAKE_PORT } from './limits.ts'

const REPEATS = 16
const BROADCAST = '255.255.255.255'
const ALL_NODES = 'ff02::1'

/**
 * Makes the packet that powers a machine on: six bytes of 255, then its MAC address sixteen times (AMD, "Magic Packet
 * Technology").
 */
export function magicPacket(mac: string): Uint8Array {
  const address = Buffer.from(mac.replaceAll(/[:-]/g, ''), 'hex')
  return Buffer.concat([Buffer.alloc(6, 0xff), ...Array<Buffer>(REPEATS).fill(address)])
}

/** Where a packet is sent from, and to. */
interface WakePlace {
  /** Address of this machine that the socket is bound to: it decides on which card a broadcast leaves, whatever routes there are. */
  readonly from?: string
  readonly to: string
}

/**
 * Where packets are sent so that every card of this machine sends them: of IPv4 the broadcast of all networks, of IPv6 the group
 * of all nodes of the cable.
 */
export function wakePlaces(interfaces: NodeJS.Dict<readonly NetworkInterfaceInfo[]>): WakePlace[] {
  const places = Object.entries(interfaces).flatMap(([card, infos = []]) => {
    const outside = infos.filter(({ internal }) => !internal)
    const four = outside
      .filter(({ family }) => family === 'IPv4')
      .map(({ address }) => ({ from: address, to: BROADCAST }))
    return outside.some(({ family }) => family === 'IPv6') ? [...four, { to: `${ALL_NODES}%${card}` }] : four
  })
  return places.length > 0 ? places : [{ to: BROADCAST }]
}

/** Sends the packets of these MAC addresses (`aa:bb:cc:dd:ee:ff`) to everybody on the LAN. Errors: the last one, if nothing could be sent. */
export async function wake(
  macs: readonly string[],
  { places = wakePlaces(networkInterfaces()), port = WAKE_PORT }: { places?: readonly WakePlace[]; port?: number } = {},
): Promise<void> {
  const sent = await Promise.allSettled(places.map((place) => sendFrom(place, macs, port)))
  const failed = sent.filter((one) => one.status === 'rejected')
  if (failed.length === sent.length) throw failed.at(-1)?.reason
}

async function sendFrom({ from, to }: WakePlace, macs: readonly string[], port: number): Promise<void> {
  const socket = createSocket(to.includes(':') ? 'udp6' : 'udp4')
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind({ port: 0, ...(from === undefined ? {} : { address: from }), exclusive: true }, resolve)
    })
    socket.setBroadcast(true)
    for (const mac of macs) {
      await new Promise<void>((resolve, reject) => {
        const done = (error: Error | null): void => (error === null ? resolve() : reject(error))
        socket.send(magicPacket(mac), port, to, done)
      })
    }
  } finally {
    socket.close()
  }
}
