import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { describe, expect, it, onTestFinished } from 'vitest'
import { magicPacket, wake } from '../../../node/roll/wake.ts'

describe('powering on from afar', () => {
  it('sends one magic packet for each MAC address', async () => {
    const socket = createSocket('udp4')
    onTestFinished(() => void socket.close())
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    const got: Buffer[] = []
    const all = new Promise<void>((resolve) => {
      socket.on('message', (packet) => {
        if (got.push(packet) === 2) resolve()
      })
    })
    await wake(['00:11:22:aa:bb:cc', '0A-0b-0c-0d-0e-0f'], { address: '127.0.0.1', port: socket.address().port })
    await all
    const expected = ['001122aabbcc', '0a0b0c0d0e0f'].map((mac) => `ffffffffffff${mac.repeat(16)}`)
    expect(got.map((packet) => packet.toString('hex')).sort()).toEqual(expected)
    expect(magicPacket('00:11:22:aa:bb:cc')).toHaveLength(102)
  })
})
