/** What dnsmasq tells of one machine. */
export type Heard =
  /** A firmware asks what to start, or iPXE does; `arch`: option 93 (RFC 4578, 2.1). */
  | { readonly kind: 'asks'; readonly mac: string; readonly arch: number; readonly isIpxe: boolean }
  /** A machine was told, or was lent, its address. */
  | { readonly kind: 'address'; readonly mac: string; readonly address: string }
  /** A file went by TFTP. */
  | { readonly kind: 'sent'; readonly address: string; readonly file: string }

const MAC = '([0-9a-f]{2}(?::[0-9a-f]{2}){5})'
const ASKS = new RegExp(`^(?:PXE|DHCPDISCOVER)\\([^)]*\\) (?:(\\d+(?:\\.\\d+){3}) )?${MAC}\\b`)
const LENT = new RegExp(`^DHCPACK\\([^)]*\\) (\\d+(?:\\.\\d+){3}) ${MAC}\\b`)

/**
 * Reads dnsmasq’s log of DHCP (`log-dhcp`), in which all lines of one packet follow each other: first what the machine says of itself, then what kind of packet
 * it is. The texts are those of rfc2131.c and tftp.c of dnsmasq 2.90.
 */
export class DnsmasqLog {
  #arch: number | undefined
  #isIpxe = false

  /** What a line tells of a machine, if it does. */
  read(line: string): Heard[] {
    const [, part, text = ''] = /^dnsmasq-(dhcp|tftp)\[\d+\]: (.*)$/.exec(line) ?? []
    if (part === 'tftp') {
      const [, path, address] = /^sent (.+) to (\S+)$/.exec(text) ?? []
      return path === undefined || address === undefined
        ? []
        : [{ kind: 'sent', address, file: path.slice(path.lastIndexOf('/') + 1) }]
    }
    return part === 'dhcp' ? this.#readDhcp(text.replace(/^\d+ /, '')) : []
  }

  #readDhcp(text: string): Heard[] {
    if (text.startsWith('available DHCP ')) {
      this.#arch = undefined
      this.#isIpxe = false
      return []
    }
    const [, arch] = /^vendor class: (?:PXE|HTTP)Client:Arch:(\d{5})/.exec(text) ?? []
    if (arch !== undefined) this.#arch = Number(arch)
    if (text === 'user class: iPXE') this.#isIpxe = true
    const [, lent, owner] = LENT.exec(text) ?? []
    if (lent !== undefined && owner !== undefined) return [{ kind: 'address', mac: owner, address: lent }]
    const [, address, mac] = ASKS.exec(text) ?? []
    if (mac === undefined) return []
    return [
      ...(address === undefined ? [] : [{ kind: 'address', mac, address } as const]),
      // Machines that only want an address do not start by network.
      ...(this.#arch === undefined ? [] : [{ kind: 'asks', mac, arch: this.#arch, isIpxe: this.#isIpxe } as const]),
    ]
  }
}
