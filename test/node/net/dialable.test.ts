import { describe, expect, it } from 'vitest'
import { dialable, onLink } from '../../../node/net/dialable.ts'
import type { OwnAddress } from '../../../node/net/own-addresses.ts'

const at = (host: string): string => `/${host.includes(':') ? 'ip6' : 'ip4'}/${host}/tcp/7433`
const card = (address: string, prefix: number): OwnAddress => ({
  card: 'eth0',
  address,
  family: address.includes(':') ? 'ip6' : 'ip4',
  isLoopback: false,
  isLinkLocal: address.startsWith('169.254.'),
  isVirtual: false,
  prefix,
})

describe('which addresses of others are dialled', () => {
  const told = [at('10.20.0.2')]

  it('leaves out where no single machine is, and this machine itself', () => {
    const none = [
      '0.0.0.0',
      '127.0.0.1',
      '::1',
      '::',
      '224.0.0.251',
      '255.255.255.255',
      'ff02::fb',
      'fe80::1',
      '169.254.1.2',
    ]
    const some = ['10.20.0.7', '192.168.1.2', '203.0.113.9', 'fd00::7', '2001:db8::1']
    expect(dialable([...none, ...some].map(at), [card('10.20.0.2', 16)], told)).toEqual(some.map(at))
    expect(dialable(['/dns4/lab.example/tcp/7433'], [], told)).toEqual(['/dns4/lab.example/tcp/7433'])
  })

  it('takes loopback addresses where machines share a computer, and link-local ones where this machine has one', () => {
    expect(dialable([at('127.0.0.1')], [], [at('127.0.0.1')])).toEqual([at('127.0.0.1')])
    expect(dialable([at('127.0.0.1')], [], [])).toEqual([at('127.0.0.1')])
    expect(dialable([at('169.254.1.2')], [card('169.254.7.7', 16)], told)).toEqual([at('169.254.1.2')])
  })

  it('takes of multicast DNS what is in a subnet of this machine', () => {
    const own = [card('10.20.0.2', 16), card('fd00::2', 64)]
    expect(onLink(['10.20.9.9', '203.0.113.9', 'fd00::9', 'fd01::9'].map(at), own)).toEqual(
      ['10.20.9.9', 'fd00::9'].map(at),
    )
  })
})
