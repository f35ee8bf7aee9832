/**
 * The folder node/control lets two commands of one machine talk: `mesh invite` asks the `mesh seed` that runs, for example.
 * - `control-server` answers on a socket in the state directory; only the owner of the directory can open it.
 * - `control-client` calls a method there; faults come back with their code.
 */

import { chmod, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { readDocument } from '../../protocol/document.ts'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { isRecord, object, optional, text } from '../../protocol/json-shape.ts'
import { listenInPlace } from '../state/socket-place.ts'
import { CONTROL_BEAT_MS, CONTROL_DEADLINE_MS, MAX_CONTROL_BYTES } from './limits.ts'

/** A method of a running command: takes and returns plain JSON values. */
export type ControlMethod = (params: Readonly<Record<string, unknown>>) => Promise<unknown>

/** The method of this name; undefined if there is none. May wait for a method that is about to come, and may throw why there is none. */
type FindMethod = (name: string) => Promise<ControlMethod | undefined>

/**
 * Lets other commands of the same machine talk to this one, over a Unix socket of the state directory that only its
 * owner can open. One line of JSON goes each way: `{"method","params"}` → `{"result"}` or
 * `{"error":{"code","message"}}`. The code is that of a MeshError, or UNEXPECTED. Spaces before an answer say that it is being
 * worked on.
 */
export class ControlServer {
  readonly #server: Server
  readonly #release: () => Promise<void>
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server, release: () => Promise<void>) {
    this.#server = server
    this.#release = release
  }

  /**
   * Listens. The caller holds the state directory, so a socket that is already there belongs to a dead process. Errors:
   * STATE_UNWRITABLE, SYSTEM_LIMIT.
   */
  static async listen(stateDir: string, find: FindMethod): Promise<ControlServer> {
    const { listening, release } = await listenInPlace(stateDir, 'control.sock', bind)
    const control = new ControlServer(listening, release)
    listening.on('connection', (socket) => control.#accept(socket, find))
    return control
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
    await this.#release()
  }

  #accept(socket: Socket, find: FindMethod): void {
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    // A caller may go away without its answer.
    socket.on('error', () => socket.destroy())
    socket.setTimeout(CONTROL_DEADLINE_MS, () => socket.destroy())
    let text = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      const end = text.indexOf('\n')
      if (end === -1 && text.length > MAX_CONTROL_BYTES) socket.destroy()
      if (end === -1) return
      socket.removeAllListeners('data')
      const beat = setInterval(() => socket.write(' '), CONTROL_BEAT_MS)
      socket.on('close', () => clearInterval(beat))
      void answer(text.slice(0, end), find).then((reply) => {
        clearInterval(beat)
        socket.end(`${JSON.stringify(reply)}\n`)
      })
    })
  }
}

async function bind(path: string): Promise<Server> {
  await rm(path, { force: true })
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  await chmod(path, 0o600)
  return server
}

const REQUEST = {
  name: 'the control request',
  shape: object({ method: text(MAX_TEXT_BYTES), params: optional(isRecord) }),
  fault: 'USAGE',
} as const

async function answer(line: string, find: FindMethod): Promise<unknown> {
  try {
    const { method: name, params = {} } = readDocument(REQUEST, line)
    const method = await find(name)
    if (method === undefined) throw new MeshError('USAGE', `no method ${name} here`)
    return { result: (await method(params)) ?? null }
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    return { error: { code: isMeshError(error) ? error.code : 'UNEXPECTED', message } }
  }
}
