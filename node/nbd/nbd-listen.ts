import { once } from 'node:events'
import { lstat, rm } from 'node:fs/promises'
import { connect, type Server } from 'node:net'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { MAX_SOCKET_PATH_BYTES } from '../state/limits.ts'

/** Where to listen. `fd`: a socket that is listening already, handed over by whoever started this process. */
export type NbdAddress =
  | { readonly unix: string }
  | { readonly host: string; readonly port: number }
  | { readonly fd: number }

/** Only the owner may connect to a Unix socket. */
const PRIVATE_UMASK = 0o177

/** Errors: PORT_TAKEN, NBD_ADDRESS_INVALID. */
export async function listenAt(server: Server, address: NbdAddress): Promise<void> {
  try {
    if ('unix' in address) await listenUnix(server, address.unix)
    else if ('fd' in address) await listening(server, () => server.listen({ fd: address.fd }))
    else await listening(server, () => server.listen({ host: address.host, port: address.port }))
  } catch (error) {
    throw listenError(error, address)
  }
}

async function listening(server: Server, listen: () => void): Promise<void> {
  listen()
  await once(server, 'listening')
}

/** Takes over the path of a server that was killed; never that of one that runs, nor of anything but a socket. */
async function listenUnix(server: Server, path: string): Promise<void> {
  // The socket is made inside the call, so the umask holds for it.
  const listen = (): void => {
    const umask = process.umask(PRIVATE_UMASK)
    try {
      server.listen(path)
    } finally {
      process.umask(umask)
    }
  }
  try {
    await listening(server, listen)
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE' || !(await isDeadSocket(path))) throw error
    await rm(path)
    await listening(server, listen)
  }
}

async function isDeadSocket(path: string): Promise<boolean> {
  const facts = await lstat(path)
  if (!facts.isSocket()) return false
  return new Promise((resolve) => {
    const probe = connect(path)
    probe.on('connect', () => {
      probe.destroy()
      resolve(false)
    })
    // Anything but a refused connection may be a server that is busy.
    probe.on('error', (error) => resolve(errnoOf(error) === 'ECONNREFUSED'))
  })
}

function listenError(error: unknown, address: NbdAddress): unknown {
  const where =
    'unix' in address ? address.unix : 'fd' in address ? `fd ${address.fd}` : `${address.host}:${address.port}`
  const code = errnoOf(error)
  if (code === 'EADDRINUSE') return new MeshError('PORT_TAKEN', `${where} is taken`, { cause: error })
  if (code === undefined) return error
  if ('unix' in address && Buffer.byteLength(address.unix) > MAX_SOCKET_PATH_BYTES) {
    const text = `${where} has ${Buffer.byteLength(address.unix)} bytes, and the path of a socket may have ${MAX_SOCKET_PATH_BYTES}`
    return new MeshError('NBD_ADDRESS_INVALID', text, { cause: error })
  }
  return new MeshError('NBD_ADDRESS_INVALID', `this machine cannot listen on ${where} (${code})`, { cause: error })
}
