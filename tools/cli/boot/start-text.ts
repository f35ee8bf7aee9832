import type { BootStep, ServeEvent } from '../../boot/serve/serve-events.ts'
import { formatSeconds } from '../format.ts'

type MachineEvent = Extract<ServeEvent, { type: 'boot-machine' }>
type StartEvent = Extract<ServeEvent, { type: 'boot-machine' | 'boot-serving' }>

const WIDTHS = { mac: '00:00:00:00:00:00'.length, address: '255.255.255.255'.length, firmware: 'UEFI by HTTP'.length }

/** What machines are at that are not done, for the last line of a terminal. */
const AT: Readonly<Partial<Record<BootStep, string>>> = {
  asks: 'asks',
  program: 'has its boot program',
  ipxe: 'is in iPXE',
  loads: 'loads the agent',
}

/** One line for people: what is served, or that a machine has the agent or got stuck; undefined for steps on the way. */
export function describeStart(event: StartEvent): string | undefined {
  if (event.type === 'boot-serving') {
    const { site, interface: card, address, dhcp, url, signed } = event
    const how = dhcp === 'proxy' ? 'beside the network’s own DHCP server' : `lending ${dhcp}`
    return [
      `serving the agent of site ${site} on ${card}, ${address}, ${how}`,
      `  ${signed ? `signed: machines of UEFI start agent.efi itself; UEFI HTTP boot: ${url}/agent.efi` : `not signed: machines with Secure Boot do not start; UEFI HTTP boot: ${url}/agent.efi`}`,
      '  switch the machines on and let them start from the network; Ctrl-C ends it',
    ].join('\n')
  }
  if (event.step === 'loaded') return `${columns(event)}  has the agent, after ${formatSeconds(event.seconds)}`
  if (event.step === 'stuck') return `${columns(event)}  warning: ${event.why ?? ''}`
  return undefined
}

function columns({ mac, address, firmware }: MachineEvent): string {
  const time = new Date().toLocaleTimeString('en-GB')
  return [
    time,
    (mac ?? 'behind a router').padEnd(WIDTHS.mac),
    (address ?? '').padEnd(WIDTHS.address),
    (firmware ?? '').padEnd(WIDTHS.firmware),
  ].join('  ')
}

/** Machines that a line of a terminal may name; it is cut off at its end. */
const MAX_SHOWN = 64

/** The machines that are on their way. */
export class Underway {
  readonly #machines = new Map<string, string>()

  /** One line about all of them, after an event; empty if there are none. */
  after(event: ServeEvent): string {
    if (event.type === 'boot-machine') {
      const key = event.mac ?? event.address ?? ''
      const at = AT[event.step]
      if (at === undefined) this.#machines.delete(key)
      else this.#machines.set(key, at)
      const [oldest] = this.#machines.keys()
      if (this.#machines.size > MAX_SHOWN && oldest !== undefined) this.#machines.delete(oldest)
    }
    const all = [...this.#machines].map(([key, at]) => `${key} ${at}`)
    return all.length === 0 ? '' : `${all.length} on the way: ${all.join(', ')}`
  }
}
