/**
 * The folder tools/boot/serve lets machines start from the agent by network (`mesh boot serve`).
 * - `serve-agent` looks at what usually goes wrong, and starts the parts; `lab-network` says on which card.
 * - `dnsmasq` runs dnsmasq as a child (`dnsmasq-config`), and `dnsmasq-log` reads what it tells. `dhcp-probe` asks who else is a DHCP server.
 * - `file-server` has the files of `agent-folder` by HTTP.
 * - `machine-list` puts together how far each machine is, and tells it as `serve-events`.
 */

import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { ownAddresses } from '../../../node/net/own-addresses.ts'
import { portHolder } from '../../../node/net/port-holder.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { packagedFile, whichProgram } from '../build-tool.ts'
import { AgentFolder } from './agent-folder.ts'
import { findDhcpServers } from './dhcp-probe.ts'
import { Dnsmasq } from './dnsmasq.ts'
import { AGENT_PROGRAM, BIOS_PROGRAM, UEFI_PROGRAM } from './dnsmasq-config.ts'
import { DnsmasqLog } from './dnsmasq-log.ts'
import { FileServer } from './file-server.ts'
import { firewallDoubt } from './firewall.ts'
import { type AddressRange, assertRange, type LabNetwork, labNetwork } from './lab-network.ts'
import { CONNECT_DEADLINE_MS, LOOK_EVERY_MS } from './limits.ts'
import { MachineList } from './machine-list.ts'
import type { ReportServing } from './serve-events.ts'

/** Where the Debian package has its files. */
const IPXE = '/usr/lib/ipxe'

/** The site whose agent is served. */
export interface ServedSite {
  readonly siteId: string
  readonly rootVersion: number
  /** TCP ports at which the master of the site is to be reached on this machine; none if this is not the master. */
  readonly masterPorts: readonly number[]
}

/** Options of `mesh boot serve`. */
interface ServeAgentOptions {
  /** Absolute path of what `mesh boot build` has made. */
  readonly folder: string
  readonly site: () => Promise<ServedSite>
  /** Network card, or address of this machine. @default the only one */
  readonly interface?: string
  readonly port: number
  /** Set where there is no other DHCP server. */
  readonly range?: AddressRange
  readonly signal: AbortSignal
  readonly report: ReportServing
}

/**
 * Serves the agent until `signal`. Errors: ROOT_NEEDED, TOOL_MISSING, BOOT_AGENT_UNFIT, BOOT_NETWORK, USAGE, PORT_TAKEN, BOOT_SERVE_FAILED.
 */
export async function serveAgent(options: ServeAgentOptions): Promise<void> {
  const { report, signal, range } = options
  if (process.getuid?.() !== 0) throw new MeshError('ROOT_NEEDED', 'only root may answer machines that start')
  const site = await options.site()
  await whichProgram('dnsmasq')
  const programs = [
    await packagedFile(join(IPXE, BIOS_PROGRAM), 'ipxe'),
    await packagedFile(join(IPXE, UEFI_PROGRAM), 'ipxe'),
  ]
  const network = await labNetwork(options.interface)
  if (range !== undefined) assertRange(range, network)
  const folder = await openAgent(site, options)
  await lookAtServers(network, options)
  const { signed, site: name } = folder.facts
  const machines = new MachineList({ report, signed })
  const server = await FileServer.listen({
    address: network.address,
    port: options.port,
    open: (file) => folder.open(file),
    onFetch: (fetch) => machines.fetched(fetch),
    onFault: ({ message }) => report({ type: 'warning', text: message }),
  })
  try {
    const url = `http://${network.address}:${server.port}`
    const log = new DnsmasqLog()
    const dnsmasq = await Dnsmasq.start({
      ...{ network, range, url, signed },
      programs: signed ? [...programs, join(folder.path, AGENT_PROGRAM)] : programs,
      onLine: (line) => {
        for (const heard of log.read(line)) machines.heard(heard)
      },
    })
    try {
      await lookAtReach(network, site, { ...options, port: server.port })
      const dhcp = range === undefined ? 'proxy' : `${range.first}-${range.last}`
      report({ type: 'boot-serving', site: name, interface: network.card, address: network.address, dhcp, url, signed })
      const addressWatch = watchAddress(network, report)
      await untilOver(dnsmasq, signal, () => {
        machines.look()
        addressWatch()
      })
    } finally {
      await dnsmasq.close()
    }
  } finally {
    await server.close()
  }
}

async function openAgent(site: ServedSite, { folder, report }: ServeAgentOptions): Promise<AgentFolder> {
  const opened = await AgentFolder.open(folder, site.siteId)
  const { rootVersion } = opened.facts
  if (rootVersion < site.rootVersion)
    report({
      type: 'warning',
      text: `the agent was made when the site’s root was of version ${rootVersion}, and it is of version ${site.rootVersion} now: make it anew`,
    })
  return opened
}

async function untilOver(dnsmasq: Dnsmasq, signal: AbortSignal, look: () => void): Promise<void> {
  if (signal.aborted) return
  const timer = setInterval(look, LOOK_EVERY_MS)
  const over = await Promise.race([once(signal, 'abort').then(() => 'asked'), dnsmasq.ended.then(() => 'ended')])
  clearInterval(timer)
  if (over === 'ended' && !signal.aborted) throw new MeshError('BOOT_SERVE_FAILED', dnsmasq.why)
}

/** Returns what looks whether the address is still there, and tells once when it goes or comes back. */
function watchAddress({ card, address }: LabNetwork, report: ReportServing): () => void {
  let wasThere = true
  return () => {
    const isThere = ownAddresses().some((own) => own.address === address)
    if (isThere === wasThere) return
    wasThere = isThere
    report(
      isThere
        ? { type: 'note', text: `${address} is back on ${card}` }
        : {
            type: 'warning',
            text: `${card} has lost its address ${address}: no machine can start until it is back. Look at the cable; if this machine has another address now, run the command again`,
          },
    )
  }
}

/** Whether the network has the one DHCP server that it needs. */
async function lookAtServers(network: LabNetwork, { range, report, signal }: ServeAgentOptions): Promise<void> {
  const holder = await portHolder(67, { kind: 'udp' })
  const servers = await findDhcpServers(network, signal)
  if (holder !== undefined)
    report({
      type: 'note',
      text: `${holder} has port 67 (UDP) too. That is no harm if it serves another network card than ${network.card}`,
    })
  if (range === undefined && servers.length === 0)
    report({
      type: 'warning',
      text: `no DHCP server has answered in the network of ${network.card}. Machines need an address to start: if there is none, give --dhcp RANGE, such as --dhcp ${exampleRange(network)}`,
    })
  if (range !== undefined && servers.length > 0)
    throw new MeshError(
      'USAGE',
      `${servers.join(', ')} is a DHCP server in the network of ${network.card}: leave --dhcp out, two would lend the same addresses`,
    )
}

function exampleRange({ address }: LabNetwork): string {
  const net = address.split('.').slice(0, 3).join('.')
  return `${net}.100-${net}.199`
}

/** Whether machines can reach what they need of this machine. */
async function lookAtReach(
  network: LabNetwork,
  site: ServedSite,
  { range, report, port }: ServeAgentOptions,
): Promise<void> {
  const udp = [67, 69, ...(range === undefined ? [4011] : [])].map((port) => ({ kind: 'udp', port }) as const)
  const mesh = site.masterPorts.map((one) => ({ kind: 'tcp', port: one }) as const)
  const doubt = await firewallDoubt(network.card, [...udp, { kind: 'tcp', port }, ...mesh])
  if (doubt !== undefined) report({ type: 'warning', text: doubt })
  if (site.masterPorts.length === 0) return
  const reached = await Promise.all(site.masterPorts.map((one) => answers(network.address, one)))
  if (!reached.includes(true))
    report({
      type: 'warning',
      text: `mesh does not listen at ${network.address}, port ${site.masterPorts.join(' or ')}: machines that start do not find their master there. Start \`mesh seed\` or \`mesh up\` here, with a --listen that is not of the loopback interface`,
    })
}

async function answers(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port })
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(CONNECT_DEADLINE_MS) })
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
