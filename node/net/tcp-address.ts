/** A multiaddr of TCP over IP, taken apart. */
export interface TcpAddress {
  readonly family: 'ip4' | 'ip6'
  readonly host: string
  readonly port: number
}

/** `/ip6/fd00::1/tcp/7433/p2p/…`, the peer id left out perhaps. */
const TCP = /^\/(ip4|ip6)\/([^/]+)\/tcp\/(\d+)(?:\/p2p\/[^/]+)?$/

/** Takes a multiaddr apart; undefined for one of another kind, such as `/dns4/…`. */
export function parseTcpAddress(text: string): TcpAddress | undefined {
  const [, family, host, port] = TCP.exec(text) ?? []
  if ((family !== 'ip4' && family !== 'ip6') || host === undefined) return undefined
  return { family, host, port: Number(port) }
}
