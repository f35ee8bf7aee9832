import { describe, expect, it } from 'vitest'
import { DnsmasqLog } from '../../../../tools/boot/serve/dnsmasq-log.ts'
import { MAX_MACHINES, STUCK_MS, STUCK_TRANSFER_MS } from '../../../../tools/boot/serve/limits.ts'
import { MachineList } from '../../../../tools/boot/serve/machine-list.ts'
import type { ServeEvent } from '../../../../tools/boot/serve/serve-events.ts'

const MAC = '52:54:00:00:00:01'
const ADDRESS = '10.77.0.100'

/** What dnsmasq 2.90 logs for one packet. */
function packet(arch: number, kind: string, ...more: string[]): string[] {
  const vendor = arch === 16 ? 'HTTPClient' : 'PXEClient'
  const said = [`vendor class: ${vendor}:Arch:${String(arch).padStart(5, '0')}:UNDI:003016`, ...more, kind]
  return [
    'available DHCP subnet: 10.77.0.0/255.255.255.0',
    ...said,
    'tags: ipxe, eth0',
    'sent size:  1 option: 53',
  ].map((text) => `dnsmasq-dhcp[812]: 30 ${text}`)
}

describe('how far machines are', () => {
  function list({ signed = false, near = true } = {}): {
    hear: (...lines: readonly string[]) => void
    machines: MachineList
    later: (ms: number) => void
    told: () => string[]
    events: ServeEvent[]
  } {
    const events: ServeEvent[] = []
    let now = 0
    const machines = new MachineList({
      ...{ signed, report: (event) => void events.push(event), now: () => now },
      macOf: (address) => (near && address === ADDRESS ? MAC : undefined),
    })
    const log = new DnsmasqLog()
    return {
      machines,
      events,
      hear: (...lines) => {
        for (const line of lines) for (const heard of log.read(line)) machines.heard(heard)
      },
      later: (ms) => (now += ms),
      told: () =>
        events.splice(0).flatMap((event) => (event.type === 'boot-machine' ? [`${event.firmware} ${event.step}`] : [])),
    }
  }

  const sent = (name: string): string => `dnsmasq-tftp[812]: sent /tmp/x/tftp/${name} to ${ADDRESS}`

  it('tells each step of a start once, whatever is repeated', () => {
    const { hear, machines, told, later, events } = list()
    for (let i = 0; i < 4; i++) hear(...packet(7, `PXE(eth0) ${MAC} proxy`))
    hear(...packet(7, `PXE(eth0) ${ADDRESS} ${MAC} snponly.efi`))
    hear('dnsmasq-tftp[812]: error 8 User aborted the transfer received from 10.77.0.100', sent('snponly.efi'))
    for (let i = 0; i < 2; i++) hear(...packet(7, `PXE(eth0) ${MAC} proxy`, 'user class: iPXE'))
    later(2500)
    for (const name of ['boot.ipxe', 'vmlinuz', 'agent.img'] as const)
      for (const isWhole of [false, true]) machines.fetched({ address: ADDRESS, name, isWhole })
    const last = { mac: MAC, address: ADDRESS, firmware: 'UEFI', step: 'loaded', seconds: 2.5 }
    expect(events.at(-1)).toEqual({ type: 'boot-machine', ...last })
    expect(told()).toEqual(['UEFI asks', 'UEFI program', 'UEFI ipxe', 'UEFI loads', 'UEFI loaded'])
    // The agent asks for an address as well: that is no start.
    hear('dnsmasq-dhcp[812]: 31 available DHCP range: 10.77.0.100 -- 10.77.0.120')
    hear('dnsmasq-dhcp[812]: 31 vendor class: udhcp 1.35.0', `dnsmasq-dhcp[812]: 31 DHCPDISCOVER(eth0) ${MAC}`)
    expect(told()).toEqual([])
    later(60_000)
    hear(...packet(0, `DHCPDISCOVER(eth0) ${MAC}`), `dnsmasq-dhcp[812]: 30 DHCPACK(eth0) 10.77.0.101 ${MAC} pc`)
    expect(events.at(-1)).toMatchObject({ firmware: 'BIOS', step: 'asks', seconds: 0 })
  })

  it('knows a machine that starts by HTTP, one behind a router, and one that nobody serves', () => {
    const near = list()
    near.hear(...packet(16, `PXE(eth0) ${MAC} proxy`))
    near.machines.fetched({ address: ADDRESS, name: 'agent.efi', isWhole: false })
    near.machines.fetched({ address: ADDRESS, name: 'agent.efi', isWhole: true })
    expect(near.told()).toEqual(['UEFI by HTTP asks', 'UEFI by HTTP loads', 'UEFI by HTTP loaded'])
    const far = list({ near: false })
    far.machines.fetched({ address: '10.99.0.7', name: 'agent.img', isWhole: true })
    expect(far.events).toMatchObject([{ mac: null, address: '10.99.0.7', firmware: null, step: 'loaded' }])
    for (let i = 0; i < 3; i++) near.hear(...packet(11, `PXE(eth0) ${MAC.replace('01', '02')} proxy`))
    expect(near.told()).toEqual(['UEFI for ARM asks', 'UEFI for ARM stuck'])
  })

  it('knows that a signed agent, which goes by TFTP, is all of it', () => {
    const { hear, told } = list({ signed: true })
    hear(...packet(7, `PXE(eth0) ${MAC} proxy`), sent('agent.efi'))
    expect(told()).toEqual(['UEFI asks', 'UEFI loaded'])
  })

  it('knows the firmware of a machine whose card has iPXE in its ROM, at each start', () => {
    const { hear, machines, told, later } = list()
    for (let i = 0; i < 2; i++) {
      hear(...packet(0, `PXE(eth0) ${MAC} proxy`, 'user class: iPXE'))
      for (const name of ['boot.ipxe', 'agent.img'] as const)
        machines.fetched({ address: ADDRESS, name, isWhole: true })
      expect(told()).toEqual(['BIOS ipxe', 'BIOS loaded'])
      later(60_000)
    }
  })

  it.each([
    [false, 'asks', /firewall here drops UDP 69/],
    [false, 'program', /is Secure Boot on there\?/],
    [true, 'asks', /has asked, and fetched nothing/],
    [false, 'loads', /firewall drops what comes by HTTP/],
  ] as const)('says what may be wrong with a machine that goes no further: signed %s, %s', (signed, step, why) => {
    const { hear, machines, later, events } = list({ signed })
    hear(...packet(7, `PXE(eth0) ${MAC} proxy`))
    if (step !== 'asks') hear(sent('snponly.efi'))
    if (step === 'loads') machines.fetched({ address: ADDRESS, name: 'vmlinuz', isWhole: true })
    later((step === 'loads' || signed ? STUCK_TRANSFER_MS : STUCK_MS) - 1)
    machines.look()
    expect(events.at(-1)).toMatchObject({ step })
    later(1)
    machines.look()
    machines.look()
    const [last, before] = [events.at(-1), events.at(-2)]
    expect([last, before]).toMatchObject([{ step: 'stuck', why: expect.stringMatching(why) }, { step }])
    machines.fetched({ address: ADDRESS, name: 'agent.img', isWhole: true })
    expect(events.at(-1)).toMatchObject({ step: 'loaded' })
  })

  it('forgets who was heard of longest ago', () => {
    const { hear, later, told, machines } = list()
    for (let i = 0; i < 2 * MAX_MACHINES; i++)
      hear(
        ...packet(
          0,
          `PXE(eth0) 52:54:00:00:${(i >> 8).toString(16).padStart(2, '0')}:${(i & 255).toString(16).padStart(2, '0')} proxy`,
        ),
      )
    expect(told()).toHaveLength(2 * MAX_MACHINES)
    later(STUCK_MS)
    machines.look()
    expect(told()).toHaveLength(MAX_MACHINES)
  })
})
