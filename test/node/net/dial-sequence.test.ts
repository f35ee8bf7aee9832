import { describe, expect, it } from 'vitest'
import { dialSequence } from '../../../node/net/dial-sequence.ts'
import { ownAddresses } from '../../../node/net/own-addresses.ts'
import { interfaces } from '../../support/interfaces.ts'

const OWN = ownAddresses(() => interfaces({ lo: ['127.0.0.1/8'], eth0: ['10.20.0.2/24', 'fd00:1::2/64'] }))

describe('dialSequence', () => {
  it('begins with what worked, then own subnets, and ends with loopback', () => {
    const addresses = [
      '/ip4/127.0.0.1/tcp/1',
      '/ip4/192.168.7.7/tcp/1',
      '/dns4/mesh.school.example/tcp/1',
      '/ip4/10.20.0.9/tcp/1',
      '/ip4/10.20.1.9/tcp/1',
    ]
    expect(dialSequence(addresses, OWN, '/ip4/10.20.1.9/tcp/1')).toEqual([
      '/ip4/10.20.1.9/tcp/1',
      '/ip4/10.20.0.9/tcp/1',
      '/ip4/192.168.7.7/tcp/1',
      '/dns4/mesh.school.example/tcp/1',
      '/ip4/127.0.0.1/tcp/1',
    ])
  })

  it('takes IPv6 and IPv4 in turn, each address once', () => {
    const addresses = ['/ip4/10.20.0.8/tcp/1', '/ip4/10.20.0.9/tcp/1', '/ip4/10.20.0.8/tcp/1', '/ip6/fd00:1::9/tcp/1']
    expect(dialSequence(addresses, OWN, undefined)).toEqual([
      '/ip6/fd00:1::9/tcp/1',
      '/ip4/10.20.0.8/tcp/1',
      '/ip4/10.20.0.9/tcp/1',
    ])
  })
})
