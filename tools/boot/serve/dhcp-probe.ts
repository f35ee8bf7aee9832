import { randomBytes } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { networkInterfaces } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { portHolder } from '../../../node/net/port-holder.ts'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import type { LabNetwork } from './lab-network.ts'
import { PROBE_EVERY_MS, PROBE_MS } from './limits.ts'

/** Layout of a message (RFC 2131, 2): fixed fields, magic cookie, options. */
const OPTIONS_AT = 240
const COOKIE = 0x63825363
const SERVER_PORT = 67

/**
 * Addresses of the DHCP servers that answer in a network, but for those that lend no addresses. It asks as a relay does (RFC 2131, 4.1), so that the answer comes to the
 * port of a server, which is free here until dnsmasq has it. Errors: PORT_TAKEN with the process that has the port.
 */
export async function findDhcpServers(network: LabNetwork, signal: AbortSignal): Promise<string[]> {
  const socket = createSocket({ type: 'udp4', reuseAddr: true })
  const found = new Set<string>()
  const question = discover(network)
  const id = question.readUInt32BE(4)
  try {
    await bind(socket, network.address)
    socket.setBroadcast(true)
    const answered = new Promise<void>((resolve) => {
      socket.on('message', (answer, { address }) => {
        if (address === network.address || !isOffer(answer, id)) return
        found.add(address)
        resolve()
      })
    })
    const ask = (): void => socket.send(question, SERVER_PORT, '255.255.255.255', () => undefined)
    ask()
    const timer = setInterval(ask, PROBE_EVERY_MS)
    const late = sleep(PROBE_MS, undefined, { signal }).catch(() => undefined)
    await Promise.race([answered, late])
    clearInterval(timer)
  } finally {
    socket.close()
  }
  return [...found]
}

async function bind(socket: Socket, address: string): Promise<void> {
  socket.bind(SERVER_PORT, address)
  try {
    await once(socket, 'listening')
  } catch (cause) {
    const why = errnoOf(cause)
    if (why !== 'EADDRINUSE')
      throw new MeshError('BOOT_NETWORK', `this machine cannot use port ${SERVER_PORT} (UDP) at ${address} (${why})`, {
        cause,
      })
    const holder = (await portHolder(SERVER_PORT, { kind: 'udp' })) ?? 'another program'
    throw new MeshError('PORT_TAKEN', `${holder} has port ${SERVER_PORT} (UDP) already`, { cause })
  }
}

/** DHCPDISCOVER of this machine’s own card, whose address the server knows perhaps: no other is kept for it. */
function discover({ card, address }: LabNetwork): Buffer {
  const mac = networkInterfaces()[card]?.[0]?.mac ?? '02:00:00:00:00:01'
  const message = Buffer.alloc(OPTIONS_AT)
  message.set([1, 1, 6, 1])
  message.set(randomBytes(4), 4)
  message.set(address.split('.').map(Number), 24)
  message.set(Buffer.from(mac.replaceAll(':', ''), 'hex'), 28)
  message.writeUInt32BE(COOKIE, 236)
  return Buffer.concat([message, Buffer.from([53, 1, 1, 55, 2, 1, 3, 255])])
}

/** Whether it lends an address to who has asked with this id. */
function isOffer(answer: Buffer, id: number): boolean {
  return answer.length > OPTIONS_AT && answer[0] === 2 && answer.readUInt32BE(4) === id && answer.readUInt32BE(16) !== 0
}
