import { describe, expect, it } from 'vitest'
import { type NeededPort, readIptables, readNft } from '../../../../tools/boot/serve/firewall.ts'

const needed: readonly NeededPort[] = [
  { kind: 'udp', port: 67 },
  { kind: 'udp', port: 69 },
  { kind: 'tcp', port: 7434 },
]
const closed = (ports: readonly NeededPort[]): number[] => ports.map(({ port }) => port)
const nft = (policy: string, ...rules: string[]): string =>
  `table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy ${policy};\n${rules.map((rule) => `\t\t${rule}\n`).join('')}\t}\n\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n`

describe('what the rules of a firewall let in', () => {
  it.each([
    ['no rules', '', []],
    ['nothing is dropped', nft('accept'), []],
    ['everything is dropped', nft('drop', 'ct state established,related accept', 'iif "lo" accept'), [67, 69, 7434]],
    ['the last rule drops', nft('accept', 'tcp dport 7434 accept', 'counter packets 0 bytes 0 drop'), [67, 69]],
    ['the last rule rejects', nft('accept', 'reject with icmpx admin-prohibited'), [67, 69, 7434]],
    ['a set, a range and a name', nft('drop', 'udp dport { 60-67, 4011 } accept', 'udp dport tftp accept'), [7434]],
    ['the card is trusted', nft('drop', 'iifname "eth0" accept'), []],
    ['another card is trusted', nft('drop', 'iifname "eth1" accept', 'tcp dport 7434 accept'), [67, 69]],
    ['all are accepted from a subnet', nft('drop', 'ip saddr 10.20.0.0/24 accept'), []],
    ['one port is dropped', nft('accept', 'udp dport 69 drop'), [69]],
    ['a port of the other kind', nft('drop', 'tcp dport { 67, 69 } accept', 'udp dport 7434 accept'), [67, 69, 7434]],
    [
      'what goes out is not looked at',
      'table ip nat {\n\tchain post {\n\t\ttype nat hook postrouting priority 0; policy drop;\n\t}\n}\n',
      [],
    ],
  ])('nft: %s', (_, rules, ports) => {
    expect(closed(readNft(rules, 'eth0', needed))).toEqual(ports)
  })

  it.each([
    ['no rules', ':INPUT ACCEPT [0:0]', []],
    ['everything is dropped', ':INPUT DROP [0:0]\n-A INPUT -m state --state ESTABLISHED -j ACCEPT', [67, 69, 7434]],
    ['some are let in', ':INPUT DROP [0:0]\n-A INPUT -p udp -m multiport --dports 67,69 -j ACCEPT', [7434]],
    [
      'the last rule drops',
      ':INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 7000:8000 -j ACCEPT\n-A INPUT -j DROP',
      [67, 69],
    ],
    ['the card is trusted', ':INPUT DROP [0:0]\n-A INPUT -i eth0 -j ACCEPT', []],
    ['one port is dropped', ':INPUT ACCEPT [0:0]\n-A INPUT -p udp -m udp --dport 67 -j REJECT', [67]],
  ])('iptables-save: %s', (_, rules, ports) => {
    expect(closed(readIptables(rules, 'eth0', needed))).toEqual(ports)
  })
})
