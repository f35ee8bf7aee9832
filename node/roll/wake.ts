import { createSocket } from 'node:dgram'
import { WAKE_PORT } from './limits.ts'

const REPEATS = 16
const BROADCAST = '255.255.255.255'

/**
 * Makes the packet that powers a machine on: six bytes of 255, then its MAC address sixteen times (AMD, "Magic Packet
 * Technology").
 */
export function magicPacket(mac: string): Uint8Array {
  const address = Buffer.from(mac.replaceAll(/[:-]/g, ''), 'hex')
  return Buffer.concat([Buffer.alloc(6, 0xff), ...Array<Buffer>(REPEATS).fill(address)])
}

/** Sends the packets of these MAC addresses (`aa:bb:cc:dd:ee:ff`) as broadcast of the LAN. Errors: those of the socket. */
export async function wake(
  macs: readonly string[],
  to: { readonly address?: string; readonly port?: number } = {},
): Promise<void> {
  const socket = createSocket('udp4')
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind(0, resolve)
    })
    socket.setBroadcast(true)
    for (const mac of macs) {
      await new Promise<void>((resolve, reject) => {
        const sent = (error: Error | null): void => (error === null ? resolve() : reject(error))
        socket.send(magicPacket(mac), to.port ?? WAKE_PORT, to.address ?? BROADCAST, sent)
      })
    }
  } finally {
    socket.close()
  }
}
