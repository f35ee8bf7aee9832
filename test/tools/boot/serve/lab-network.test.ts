import { describe, expect, it } from 'vitest'
import type { OwnAddress } from '../../../../node/net/own-addresses.ts'
import { assertRange, labNetwork, subnetOf } from '../../../../tools/boot/serve/lab-network.ts'

const own = (card: string, address: string, prefix = 24, more: Partial<OwnAddress> = {}): OwnAddress => ({
  ...{ card, address, prefix, isLoopback: address.startsWith('127.'), isLinkLocal: address.startsWith('169.254.') },
  ...{ family: 'ip4', isVirtual: false },
  ...more,
})
const lo = own('lo', '127.0.0.1', 8)
const docker = own('docker0', '172.17.0.1', 16, { isVirtual: true })
const eth0 = own('eth0', '10.20.0.2')
const cards = ['lo', 'docker0', 'eth0', 'eth1']

describe('the network that machines are served in', () => {
  it('is that of the only card, or of the one that is named', async () => {
    expect(await labNetwork(undefined, [lo, docker, eth0, own('eth0', '10.21.0.2')], cards)).toBe(eth0)
    const eth1 = own('eth1', '10.30.0.2')
    expect(await labNetwork('eth1', [lo, eth0, eth1], cards)).toBe(eth1)
    expect(await labNetwork('10.30.0.2', [lo, eth0, eth1], cards)).toBe(eth1)
    expect(await labNetwork('docker0', [lo, docker, eth0], cards)).toBe(docker)
  })

  it.each([
    [undefined, [lo, docker], 'BOOT_NETWORK', /no IPv4 address in a network/],
    [undefined, [lo, own('eth0', '169.254.7.7', 16)], 'BOOT_NETWORK', /no IPv4 address in a network/],
    [undefined, [lo, eth0, own('eth1', '10.30.0.2')], 'USAGE', /eth0 \(10\.20\.0\.2\/24\), eth1 \(10\.30\.0\.2\/24\)/],
    ['lo', [lo, eth0], 'BOOT_NETWORK', /lo is the loopback interface/],
    ['eth1', [lo, eth0], 'BOOT_NETWORK', /eth1 has no address: its cable is out/],
    ['eth1', [own('eth1', 'fd00::1', 64, { family: 'ip6' })], 'BOOT_NETWORK', /eth1 has no IPv4 address.*fd00::1/],
    ['eth7', [lo, eth0], 'USAGE', /no network card or address eth7; it has eth0 \(10\.20\.0\.2\/24\)/],
    ['10.20.0.9', [lo], 'USAGE', /it has no address in a network/],
  ] as const)('says what is wrong with %s', async (given, addresses, code, message) => {
    const failing = labNetwork(given, addresses, cards)
    await expect(failing).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
  })

  it('knows its subnet', () => {
    expect(subnetOf(eth0)).toEqual({ base: '10.20.0.0', mask: '255.255.255.0' })
    expect(subnetOf(own('eth0', '172.16.77.200', 20))).toEqual({ base: '172.16.64.0', mask: '255.255.240.0' })
    expect(subnetOf(own('eth0', '192.168.1.130', 25))).toEqual({ base: '192.168.1.128', mask: '255.255.255.128' })
  })

  it('lends out addresses of its own, which nobody has', () => {
    expect(() => assertRange({ first: '10.20.0.100', last: '10.20.0.199' }, eth0)).not.toThrow()
    for (const [first, last, message] of [
      ['10.21.0.100', '10.21.0.199', /is not in the network of eth0/],
      ['10.20.0.199', '10.20.0.100', /ends before it begins/],
      ['10.20.0.1', '10.20.0.9', /holds 10\.20\.0\.2, which is this machine’s own/],
      ['10.20.0.0', '10.20.0.1', /the address of the network itself/],
      ['10.20.0.3', '10.20.0.255', /broadcast address/],
    ] as const)
      expect(() => assertRange({ first, last }, eth0), first).toThrow(message)
    const wide = own('eth0', '10.0.0.1', 8)
    expect(() => assertRange({ first: '10.1.0.0', last: '10.9.0.0' }, wide)).toThrow(/more than 65536 addresses/)
  })
})
