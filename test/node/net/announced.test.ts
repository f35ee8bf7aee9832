import { describe, expect, it } from 'vitest'
import { announced, tellable } from '../../../node/net/announced.ts'
import { ownAddresses } from '../../../node/net/own-addresses.ts'
import { interfaces } from '../../support/interfaces.ts'

const LAB = ['/ip4/0.0.0.0/tcp/7433', '/ip6/::/tcp/7433']

function announcedWith(cards: Record<string, string[]>, listen = LAB, bound = listen): string[] {
  return announced(
    listen,
    bound,
    ownAddresses(() => interfaces(cards)),
  )
}

describe('announced', () => {
  it('replaces a wildcard by what it stands for, the cards before the bridges', () => {
    const cards = {
      lo: ['127.0.0.1/8', '::1/128'],
      docker0: ['172.17.0.1/16'],
      eth0: ['10.20.0.2/24', 'fd00:1::2/64', 'fe80::2/64'],
    }
    expect(announcedWith(cards)).toEqual([
      '/ip4/10.20.0.2/tcp/7433',
      '/ip6/fd00:1::2/tcp/7433',
      '/ip4/172.17.0.1/tcp/7433',
    ])
  })

  it('announces IPv6 alone, and 169.254.0.0/16 after what a router knows', () => {
    expect(announcedWith({ lo: ['::1/128'], eth0: ['fe80::2/64', 'fd00:1::2/64'] })).toEqual([
      '/ip6/fd00:1::2/tcp/7433',
    ])
    expect(announcedWith({ eth0: ['169.254.3.4/16'], eth1: ['10.0.0.1/8'] })).toEqual([
      '/ip4/10.0.0.1/tcp/7433',
      '/ip4/169.254.3.4/tcp/7433',
    ])
  })

  it('announces loopback only if there is nothing else, and nothing without any card', () => {
    expect(announcedWith({ lo: ['127.0.0.1/8', '::1/128'], eth0: ['fe80::2/64'] })).toEqual([
      '/ip4/127.0.0.1/tcp/7433',
      '/ip6/::1/tcp/7433',
    ])
    expect(announcedWith({})).toEqual([])
  })

  it('leaves alone what was asked for by name, and takes a port that the kernel chose from it', () => {
    const listen = ['/ip4/127.0.0.1/tcp/0', '/dns4/mesh.school.example/tcp/7433', '/ip4/0.0.0.0/tcp/0']
    const bound = ['/ip4/127.0.0.1/tcp/40001']
    expect(announcedWith({ eth0: ['10.0.0.1/8'] }, listen, bound)).toEqual([
      '/ip4/127.0.0.1/tcp/40001',
      '/dns4/mesh.school.example/tcp/7433',
      '/ip4/10.0.0.1/tcp/40001',
    ])
  })

  it('does not let the many addresses of one card crowd out others', () => {
    const many = Array.from({ length: 30 }, (_, i) => `fd00:1::${i + 1}/64`)
    expect(announcedWith({ eth0: [...many, '10.0.0.1/8'] })).toHaveLength(5)
  })
})

describe('tellable', () => {
  it('tells a third machine of loopback only if there is nothing else', () => {
    expect(tellable(['/ip4/127.0.0.1/tcp/1', '/ip6/::1/tcp/1', '/ip4/10.0.0.1/tcp/1'])).toEqual(['/ip4/10.0.0.1/tcp/1'])
    expect(tellable(['/ip4/127.0.0.1/tcp/1'])).toEqual(['/ip4/127.0.0.1/tcp/1'])
  })
})

describe('own addresses', () => {
  it('are none where the kernel may not be asked', () => {
    const forbidden = (): never => {
      throw new Error('uv_interface_addresses returned Unknown system error 97')
    }
    expect(ownAddresses(forbidden)).toEqual([])
  })
})
