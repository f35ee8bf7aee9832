import { type AddressRange, type LabNetwork, subnetOf } from './lab-network.ts'
import { LEASE_TIME, MAX_TFTP_TRANSFERS } from './limits.ts'

/** Boot program of BIOS machines, which goes on with the card’s driver that the ROM has. */
export const BIOS_PROGRAM = 'undionly.kpxe'

/** The same for UEFI. It is not signed. */
export const UEFI_PROGRAM = 'snponly.efi'

/** The agent as one EFI program. */
export const AGENT_PROGRAM = 'agent.efi'

/** What dnsmasq is told. */
export interface DnsmasqOptions {
  readonly network: LabNetwork
  /** Set where there is no other DHCP server. */
  readonly range: AddressRange | undefined
  /** URL of the folder of the agent’s files, without a slash at its end. */
  readonly url: string
  /** The agent is signed: machines of UEFI start it itself, without iPXE, which is not. */
  readonly signed: boolean
}

/**
 * Configuration of dnsmasq: no DNS, one network card, a TFTP folder of our own. Proxy DHCP (PXE specification 2.1, 2.2.3) leaves addresses to the
 * network’s own server, and says only what is to be started. UEFI HTTP boot gets its URL in the same way. Source: dnsmasq(8).
 */
export function dnsmasqConfig(
  { network, range, url, signed }: DnsmasqOptions,
  { tftp, leases }: { readonly tftp: string; readonly leases: string },
): string {
  const { base, mask } = subnetOf(network)
  const uefi = signed ? AGENT_PROGRAM : UEFI_PROGRAM
  const common = [
    'port=0',
    'no-resolv',
    'no-hosts',
    'pid-file=',
    'log-facility=-',
    'log-dhcp',
    `interface=${network.card}`,
    'bind-dynamic',
    'except-interface=lo',
    `enable-tftp=${network.card}`,
    `tftp-root=${tftp}`,
    `tftp-max=${MAX_TFTP_TRANSFERS}`,
    `dhcp-leasefile=${leases}`,
    // iPXE says by option 175 what it can do. What processor and firmware a machine has stands in option 93 (RFC 4578, 2.1).
    'dhcp-match=set:ipxe,175',
    ...['7', '9'].map((arch) => `dhcp-match=set:uefi,option:client-arch,${arch}`),
    'dhcp-match=set:bios,option:client-arch,0',
    'dhcp-match=set:http,option:client-arch,16',
    // iPXE goes by an offer only if it names a server, too. Where it starts an agent that is signed the firmware checks it.
    `dhcp-boot=tag:ipxe,tag:bios,${url}/boot.ipxe,,${network.address}`,
    `dhcp-boot=tag:ipxe,tag:uefi,${url}/${signed ? AGENT_PROGRAM : 'boot.ipxe'},,${network.address}`,
    `dhcp-boot=tag:http,${url}/${AGENT_PROGRAM},,${network.address}`,
  ]
  const proxy = [
    `dhcp-range=${base},proxy,${mask}`,
    'dhcp-pxe-vendor=PXEClient,HTTPClient',
    `pxe-service=tag:!ipxe,x86PC,"mesh",${BIOS_PROGRAM}`,
    `pxe-service=tag:!ipxe,X86-64_EFI,"mesh",${uefi}`,
    `pxe-service=tag:!ipxe,BC_EFI,"mesh",${uefi}`,
  ]
  const own = (lent: AddressRange): string[] => [
    `dhcp-range=${lent.first},${lent.last},${mask},${LEASE_TIME}`,
    'dhcp-authoritative',
    // This machine is no router and no name server.
    'dhcp-option=option:router',
    'dhcp-option=option:dns-server',
    `dhcp-boot=tag:!ipxe,tag:bios,${BIOS_PROGRAM}`,
    `dhcp-boot=tag:!ipxe,tag:uefi,${uefi}`,
    'dhcp-option-force=tag:http,option:vendor-class,HTTPClient',
  ]
  return `${[...common, ...(range === undefined ? proxy : own(range))].join('\n')}\n`
}
