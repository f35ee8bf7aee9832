import { MeshError } from '../../protocol/errors.ts'

/** Where an NBD server is, and which of its exports is meant. */
export interface NbdTarget {
  readonly uri: string
  readonly socket: { readonly path: string } | { readonly host: string; readonly port: number }
  readonly exportName: string
}

const DEFAULT_PORT = 10809

/**
 * Reads `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`
 * (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md). Errors: NBD_ADDRESS_INVALID.
 */
export function parseNbdUri(uri: string): NbdTarget {
  const fault = (what: string): MeshError => new MeshError('NBD_ADDRESS_INVALID', `${uri}: ${what}`)
  // URL parses addresses of schemes that it does not know in another way.
  const [, scheme, rest] = /^([a-z+]+):\/\/(.*)$/.exec(uri) ?? []
  if (scheme === 'nbds' || scheme === 'nbds+unix' || scheme === 'nbds+vsock')
    throw fault('NBD over TLS is not supported; use a Unix socket, or a network that only the lab can reach')
  if (scheme === undefined || rest === undefined || !(scheme === 'nbd' || scheme === 'nbd+unix'))
    throw fault('not an NBD address')
  const local = scheme === 'nbd+unix'
  if (local && !/^[/?]/.test(rest)) throw fault('a Unix socket is on no host')
  const url = URL.parse(`http://${local ? 'unix' : ''}${rest}`)
  const exportName = url === null ? undefined : decode(url.pathname.slice(1))
  if (url === null || exportName === undefined) throw fault('not an NBD address')
  if (!local) {
    const port = url.port === '' ? portOf(rest) : Number(url.port)
    return { uri, exportName, socket: { host: url.hostname.replace(/^\[|\]$/g, ''), port } }
  }
  // In the query only %XX is an escape; a plus sign means itself.
  const path = new URLSearchParams(url.search.replaceAll('+', '%2B')).get('socket')
  if (path === null || path === '') throw fault('it names no socket (?socket=PATH)')
  return { uri, exportName, socket: { path } }
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** The port as it was written: URL drops a port that is the usual one of the scheme by which it parsed. */
function portOf(rest: string): number {
  return /^[^/?]*:80(?:[/?]|$)/.test(rest) ? 80 : DEFAULT_PORT
}
