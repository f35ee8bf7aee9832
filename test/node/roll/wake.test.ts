import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { describe, expect, it, onTestFinished } from 'vitest'
import { magicPacket, wake, wakePlaces } from '../../../node/roll/wake.ts'
import { interfaces } from '../../support/interfaces.ts'

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
    await wake(['00:11:22:aa:bb:cc', '0A-0b-0c-0d-0e-0f'], {
      places: [{ to: '127.0.0.1' }],
      port: socket.address().port,
    })
    await all
    const expected = ['001122aabbcc', '0a0b0c0d0e0f'].map((mac) => `ffffffffffff${mac.repeat(16)}`)
    expect(got.map((packet) => packet.toString('hex')).sort()).toEqual(expected)
    expect(magicPacket('00:11:22:aa:bb:cc')).toHaveLength(102)
  })
  it('leaves on every card, over IPv4 and IPv6', () => {
    const cards = {
      lo: ['127.0.0.1/8', '::1/128'],
      eth0: ['10.0.0.1/8', 'fe80::1/64', 'fd00::1/64'],
      eth1: ['192.168.0.1/24'],
      eth2: ['fe80::2/64'],
    }
    expect(wakePlaces(interfaces(cards))).toEqual([
      { from: '10.0.0.1', to: '255.255.255.255' },
      { to: 'ff02::1%eth0' },
      { from: '192.168.0.1', to: '255.255.255.255' },
      { to: 'ff02::1%eth2' },
    ])
    expect(wakePlaces(interfaces({ lo: ['127.0.0.1/8'] }))).toEqual([{ to: '255.255.255.255' }])
  })

  it('fails only if no card could send', async () => {
    const nowhere = { from: '192.0.2.1', to: '127.0.0.1' }
    await expect(wake(['00:11:22:aa:bb:cc'], { places: [nowhere] })).rejects.toThrow()
    await wake(['00:11:22:aa:bb:cc'], { places: [nowhere, { to: '127.0.0.1' }] })
  })
})
