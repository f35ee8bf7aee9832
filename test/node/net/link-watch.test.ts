import { describe, expect, it, onTestFinished } from 'vitest'
import { LINK_LOST_PATIENCE_MS, LINK_OLD_UPTIME_S, LINK_SETTLE_MS } from '../../../node/net/limits.ts'
import { LinkWatch } from '../../../node/net/link-watch.ts'
import { NetworkWatch } from '../../../node/net/network-watch.ts'
import { ownAddresses } from '../../../node/net/own-addresses.ts'
import { interfaces } from '../../support/interfaces.ts'

const LOOPBACK = { lo: ['127.0.0.1/8'] }
const ETH0 = { ...LOOPBACK, eth0: ['10.0.0.1/8'] }

/** A computer whose cards, clock and kernel the test moves. */
class Computer {
  cards: Record<string, string[]>
  now = 0
  facts: Record<string, string> = { carrier: '1', operstate: 'up', carrier_up_count: '1' }
  readonly said: string[] = []
  readonly network: NetworkWatch
  readonly link: LinkWatch

  constructor(cards: Record<string, string[]>, uptimeSeconds: number, facts: Record<string, string> = {}) {
    this.cards = cards
    Object.assign(this.facts, facts)
    this.network = new NetworkWatch(() => ownAddresses(() => interfaces(this.cards)))
    onTestFinished(() => this.network.close())
    this.link = new LinkWatch(this.network, {
      report: (kind, text) => this.said.push(`${kind}: ${text}`),
      now: () => this.now,
      fact: (_, name) => this.facts[name],
      uptimeSeconds: () => uptimeSeconds,
    })
  }

  turns(cards: Record<string, string[]>, facts: Record<string, string> = {}): void {
    this.cards = cards
    Object.assign(this.facts, facts)
    this.network.look()
  }
}

describe('LinkWatch', () => {
  it('waits for the switch after a boot, until somebody was reached', () => {
    const booting = new Computer(ETH0, 12)
    expect(booting.link.youngest()).toEqual({ card: 'eth0', restMs: LINK_SETTLE_MS })
    booting.now = LINK_SETTLE_MS - 1
    expect(booting.link.isComing()).toBe(true)
    booting.now = LINK_SETTLE_MS
    expect(booting.link.isComing()).toBe(false)
    booting.now = 0
    booting.link.works()
    expect(booting.link.isComing()).toBe(false)
  })

  it('does not wait on a computer that runs for long, unless the link came up again since then', () => {
    expect(new Computer(ETH0, LINK_OLD_UPTIME_S + 1).link.isComing()).toBe(false)
    expect(new Computer(ETH0, LINK_OLD_UPTIME_S + 1, { carrier_up_count: '2' }).link.isComing()).toBe(true)
  })

  it('says when a cable is pulled and put back, and waits a while for it', () => {
    const computer = new Computer(ETH0, 3600)
    computer.now = 1000
    computer.turns(LOOPBACK, { carrier: '0', operstate: 'down' })
    expect(computer.said.at(-1)).toMatch(/^warning: network card eth0 has no link/)
    expect(computer.link.fault()).toMatch(/eth0 has no link/)
    expect(computer.link.isComing()).toBe(true)
    computer.now += LINK_LOST_PATIENCE_MS
    expect(computer.link.isComing()).toBe(false)
    computer.turns(ETH0, { carrier: '1', operstate: 'up' })
    expect(computer.said.at(-1)).toBe('note: network card eth0 has a link again')
    expect(computer.link.fault()).toBeUndefined()
    expect(computer.link.youngest()).toEqual({ card: 'eth0', restMs: LINK_SETTLE_MS })
  })

  it('waits for a cable also if another card is left, until somebody is reached by that', () => {
    const WLAN = { wlan0: ['10.9.0.1/24'] }
    const computer = new Computer({ ...ETH0, ...WLAN }, 3600)
    computer.link.works()
    computer.now = 1000
    computer.turns({ ...LOOPBACK, ...WLAN }, { carrier: '0', operstate: 'down' })
    expect(computer.said.at(-1)).toMatch(/^warning: network card eth0 has no link/)
    expect([computer.link.isComing(), computer.link.fault()]).toEqual([
      true,
      'network card eth0 has no link (cable, switch)',
    ])
    computer.now += 1
    computer.link.works()
    expect([computer.link.isComing(), computer.link.fault()]).toEqual([false, undefined])
  })

  it('tells an address that is lost from a cable, and from a card that is pulled out', () => {
    const computer = new Computer(ETH0, 3600)
    computer.turns(LOOPBACK)
    expect(computer.link.fault()).toBe('network card eth0 has lost its addresses')
    const usb = new Computer(ETH0, 3600)
    usb.facts = {}
    usb.turns(LOOPBACK)
    expect(usb.link.fault()).toBe('network card eth0 is gone')
    expect(new Computer(LOOPBACK, 3600).link.fault()).toMatch(/no network card/)
  })

  it('has nothing to say of containers, nor of an address that is replaced by another', () => {
    const computer = new Computer({ ...ETH0, docker0: ['172.17.0.1/16'] }, 3600)
    computer.turns(ETH0)
    computer.turns({ ...LOOPBACK, eth0: ['10.0.0.2/8'] })
    expect(computer.said).toEqual([])
    expect(computer.link.fault()).toBeUndefined()
  })
})
