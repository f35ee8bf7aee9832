import { DEFAULT_PORT } from '../../../protocol/constants.ts'
import { type Digest, toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { HostOptions, MeshHost } from '../../net/host.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'

/** How a machine listens and looks for others. */
interface StartHostOptions {
  /** Multiaddrs; default: the saved ones, else all interfaces on the default port. */
  readonly listen?: readonly string[] | undefined
  /** Whether peers are also looked for by multicast DNS. @default true */
  readonly mdns?: boolean | undefined
  /** Listen on any other port if the port is taken: others find a restore by what it tells them. @default false */
  readonly mayMovePort?: boolean | undefined
  /** Whether a peer that is no member may connect at this moment. */
  readonly admitsStrangers: () => boolean
  /** Whether a member is banned, and may not connect. */
  readonly refuses?: (peerId: string) => boolean
  /** A peer broke the protocol on a stream that it had opened; `reason`: what it did, as a sentence. */
  readonly broke?: (peerId: string, reason: string) => void
  readonly report: (event: AgentEvent) => void
}

const DEFAULT_LISTEN = [`/ip4/0.0.0.0/tcp/${DEFAULT_PORT}`, `/ip6/::/tcp/${DEFAULT_PORT}`]

/** Starts libp2p with this machine's key. libp2p is loaded here and not before. Errors: PORT_TAKEN, ADDRESS_INVALID. */
export async function startHost(machine: Machine, options: StartHostOptions): Promise<MeshHost> {
  const { listen = [], mayMovePort = false, report } = options
  const [{ MeshHost }, key] = await Promise.all([import('../../net/host.ts'), machine.key()])
  const places = [listen, machine.config.listen, DEFAULT_LISTEN]
  const chosen = places.find((addresses) => addresses.length > 0) ?? []
  const start = (addresses: readonly string[]): Promise<MeshHost> =>
    MeshHost.start({ key, listen: addresses, ...hostOptions(machine, options) })
  try {
    return await start(chosen)
  } catch (error) {
    if (!mayMovePort || !isMeshError(error, 'PORT_TAKEN')) throw error
    report({ type: 'note', text: `${error.message}; this restore listens on another port` })
    return start(chosen.map((address) => address.replace(/\/tcp\/\d+$/, '/tcp/0')))
  }
}

function hostOptions(
  machine: Machine,
  { mdns = true, admitsStrangers, refuses = () => false, broke, report }: StartHostOptions,
): Omit<HostOptions, 'key' | 'listen'> {
  return {
    gate: {
      admits: (peerId) =>
        machine.isMember(peerId) ? !refuses(peerId) : machine.isRemoved(peerId) || admitsStrangers(),
    },
    onError: (peerId, error) => {
      if (isMeshError(error, 'PROTOCOL_VIOLATION')) broke?.(peerId, error.message)
    },
    warn: (text) => report({ type: 'warning', text }),
    ...(mdns ? { mdnsTag: siteTag(machine.trust.siteId) } : {}),
  }
}

/** The name under which machines of one site find each other by multicast DNS, and nobody else. */
export function siteTag(siteId: Digest): string {
  return `mesh-${toHex(siteId).slice(0, 8)}.local`
}
