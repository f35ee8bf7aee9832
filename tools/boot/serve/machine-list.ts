import { readFileSync } from 'node:fs'
import type { ServedFile } from './agent-folder.ts'
import { AGENT_PROGRAM } from './dnsmasq-config.ts'
import type { Heard } from './dnsmasq-log.ts'
import { MAX_MACHINES, SAME_START_MS, STUCK_MS, STUCK_TRANSFER_MS } from './limits.ts'
import type { BootStep, ReportServing } from './serve-events.ts'

/** What machines say they are (processor architecture types of IANA, DHCPv6 parameters), and whether there is a program for it. */
const FIRMWARES: Readonly<Record<number, { readonly name: string; readonly isServed: boolean }>> = {
  0: { name: 'BIOS', isServed: true },
  6: { name: 'UEFI of 32 bits', isServed: false },
  7: { name: 'UEFI', isServed: true },
  9: { name: 'UEFI', isServed: true },
  11: { name: 'UEFI for ARM', isServed: false },
  15: { name: 'UEFI of 32 bits by HTTP', isServed: false },
  16: { name: 'UEFI by HTTP', isServed: true },
  19: { name: 'UEFI for ARM by HTTP', isServed: false },
}

interface Machine {
  readonly mac: string | null
  address: string | null
  firmware: string | null
  step: BootStep
  /** What it did last before it got stuck. */
  before: BootStep
  startedAt: number
  changedAt: number
}

const ORDER: readonly BootStep[] = ['asks', 'program', 'ipxe', 'loads', 'loaded']

/** How far each machine has come, put together from what dnsmasq and the web server see. Tells each step of a start once. */
export class MachineList {
  /** The one that was heard of longest ago comes first. */
  readonly #machines = new Map<string, Machine>()
  readonly #report: ReportServing
  readonly #now: () => number
  readonly #macOf: (address: string) => string | undefined
  readonly #signed: boolean

  constructor(options: {
    readonly report: ReportServing
    readonly signed: boolean
    readonly now?: () => number
    readonly macOf?: (address: string) => string | undefined
  }) {
    this.#report = options.report
    this.#signed = options.signed
    this.#now = options.now ?? (() => performance.now())
    this.#macOf = options.macOf ?? neighbour
  }

  /** What dnsmasq has told. */
  heard(heard: Heard): void {
    if (heard.kind === 'address') {
      const known = this.#machines.get(heard.mac)
      if (known !== undefined) known.address = heard.address
    } else if (heard.kind === 'sent')
      this.#go(this.#find(heard.address), heard.file === AGENT_PROGRAM ? 'loaded' : 'program')
    else if (heard.isIpxe) {
      const machine = this.#get(heard.mac, null)
      // iPXE in the ROM of a card is the first that asks.
      machine.firmware ??= FIRMWARES[heard.arch]?.name ?? null
      this.#go(machine, 'ipxe')
    } else this.#asks(heard.mac, heard.arch)
  }

  /** What the web server has sent, or begins to. */
  fetched({ address, name, isWhole }: { address: string; name: ServedFile; isWhole: boolean }): void {
    const isAgent = name === 'agent.img' || name === 'agent.efi'
    const step = name === 'boot.ipxe' ? 'ipxe' : isAgent && isWhole ? 'loaded' : 'loads'
    this.#go(this.#find(address), step)
  }

  /** Tells which machines have come no further for a while. */
  look(): void {
    const now = this.#now()
    for (const machine of this.#machines.values()) {
      const { step } = machine
      // Of a transfer only its end is known here.
      const isLong = step === 'loads' || (step === 'asks' && this.#signed)
      if (step === 'loaded' || step === 'stuck') continue
      if (now - machine.changedAt < (isLong ? STUCK_TRANSFER_MS : STUCK_MS)) continue
      machine.before = step
      machine.step = 'stuck'
      this.#tell(machine, this.#whyStuck(machine))
    }
  }

  #asks(mac: string, arch: number): void {
    const now = this.#now()
    const machine = this.#get(mac, null)
    const firmware = FIRMWARES[arch] ?? { name: `firmware of type ${arch}`, isServed: false }
    // A ROM repeats itself. One that asks after it had got further has been started anew.
    const isSame = machine.firmware === firmware.name && (machine.step === 'asks' || !firmware.isServed)
    const isLate = machine.step !== 'asks' && machine.step !== 'stuck' && now - machine.changedAt < SAME_START_MS
    if (isSame || isLate) return
    Object.assign(machine, { firmware: firmware.name, step: 'asks', startedAt: now, changedAt: now })
    this.#tell(machine)
    if (firmware.isServed) return
    machine.before = 'asks'
    machine.step = 'stuck'
    this.#tell(machine, `there is no agent for ${firmware.name}, only for PCs of 64 bits`)
  }

  #go(machine: Machine, step: BootStep): void {
    const from = ORDER.indexOf(machine.step === 'stuck' ? machine.before : machine.step)
    const to = ORDER.indexOf(step)
    // What a step back means, a new start, is told when the firmware asks; iPXE of a card asks first.
    const isAnew = step === 'ipxe' && machine.step === 'loaded'
    if (to <= from && !isAnew && !(step === 'program' && machine.step === 'loaded')) return
    const now = this.#now()
    if (isAnew) machine.startedAt = now
    Object.assign(machine, { step, changedAt: now })
    this.#tell(machine)
  }

  #find(address: string): Machine {
    const mac = this.#macOf(address)
    const byAddress = [...this.#machines.values()].find((machine) => machine.address === address)
    return mac === undefined ? (byAddress ?? this.#get(address, address)) : this.#get(mac, address)
  }

  /** `key`: the network card, or the address of a machine behind a router. */
  #get(key: string, address: string | null): Machine {
    const known = this.#machines.get(key)
    this.#machines.delete(key)
    const now = this.#now()
    const machine = known ?? {
      mac: key === address ? null : key,
      address,
      firmware: null,
      step: 'stuck' as const,
      before: 'stuck' as const,
      startedAt: now,
      changedAt: now,
    }
    machine.address = address ?? machine.address
    this.#machines.set(key, machine)
    const [oldest] = this.#machines.keys()
    if (this.#machines.size > MAX_MACHINES && oldest !== undefined) this.#machines.delete(oldest)
    return machine
  }

  #whyStuck({ step, before, firmware }: Machine): string {
    const at = step === 'stuck' ? before : step
    if (at === 'asks')
      return firmware === 'UEFI by HTTP'
        ? 'it has asked, and fetched nothing: see whether a firewall drops what comes by HTTP'
        : 'it has asked, and fetched nothing: see whether a firewall here drops UDP 69 and 4011, and whether it may start from the network'
    if (at === 'program')
      return firmware === 'UEFI'
        ? 'it has its boot program and does not start it: is Secure Boot on there? Switch it off, or sign the agent (`mesh boot build --sign-key`)'
        : 'it has its boot program, and does not go on'
    return 'it has begun to load the agent, and does not go on: see whether a firewall drops what comes by HTTP, and look at its screen'
  }

  #tell({ mac, address, firmware, step, startedAt }: Machine, why?: string): void {
    const seconds = Math.round((this.#now() - startedAt) / 100) / 10
    this.#report({
      ...{ type: 'boot-machine', mac, address, firmware, step, seconds },
      ...(why === undefined ? {} : { why }),
    })
  }
}

/** Network card of an address in this network, from the kernel’s ARP table (proc_net(5)); undefined behind a router. */
function neighbour(address: string): string | undefined {
  try {
    const line = readFileSync('/proc/net/arp', 'utf8')
      .split('\n')
      .find((row) => row.startsWith(`${address} `))
    const mac = line?.split(/\s+/)[3]
    return mac === '00:00:00:00:00:00' ? undefined : mac
  } catch {
    return undefined
  }
}
