/**
 * The folder node/control lets two commands of one machine talk: `mesh invite` asks the `mesh seed` that runs, for example.
 * - `control-server` answers calls (`control-call`) on a socket in the state directory; only the owner of the directory can open it.
 * - `control-client` calls a method there; faults come back with their code.
 */

import { chmod, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { readDocument } from '../../protocol/document.ts'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { isRecord, object, optional, text } from '../../protocol/json-shape.ts'
import { listenInPlace } from '../state/socket-place.ts'
import { ControlCall } from './control-call.ts'
import { MAX_CONTROL_CONNECTIONS, MAX_CONTROL_WAITING_BYTES, TURN_AWAY_MS } from './limits.ts'

/** A method of a running command: takes and returns plain JSON values. */
export type ControlMethod = (params: Readonly<Record<string, unknown>>) => Promise<unknown>

/** Callers, and bytes of requests that have come in in part and of answers that were not taken, with the most of each. */
export interface ControlFigures {
  readonly connections: number
  readonly mostConnections: number
  readonly waitingBytes: number
  readonly mostWaitingBytes: number
}

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
  readonly #calls = new Set<ControlCall>()

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

  figures(): ControlFigures {
    return {
      connections: this.#calls.size,
      mostConnections: MAX_CONTROL_CONNECTIONS,
      waitingBytes: this.#waitingBytes(),
      mostWaitingBytes: MAX_CONTROL_WAITING_BYTES,
    }
  }

  async close(): Promise<void> {
    for (const call of this.#calls) call.drop()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
    await this.#release()
  }

  #accept(socket: Socket, find: FindMethod): void {
    if (this.#calls.size >= MAX_CONTROL_CONNECTIONS && !this.#dropIdlest()) {
      turnAway(socket)
      return
    }
    const call = new ControlCall(socket, {
      answer: async (line) => encodeReply(await answer(line, find)),
      onProgress: () => this.#noteProgress(call),
    })
    this.#calls.add(call)
    socket.on('close', () => this.#calls.delete(call))
  }

  /** Whoever has just sent or taken anything goes last. Those whom everybody waits for the longest make room. */
  #noteProgress(call: ControlCall): void {
    if (!this.#calls.delete(call)) return
    this.#calls.add(call)
    while (this.#waitingBytes() > MAX_CONTROL_WAITING_BYTES && this.#dropIdlest());
  }

  #waitingBytes(): number {
    return this.#calls.values().reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Disconnects the caller that has been waited for the longest; false if each is being answered. */
  #dropIdlest(): boolean {
    const idlest = this.#calls.values().find((call) => !call.isAnswering)
    if (idlest === undefined) return false
    this.#calls.delete(idlest)
    idlest.drop()
    return true
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
    return refusal(isMeshError(error) ? error.code : 'UNEXPECTED', message)
  }
}

/** What a caller has sent is read, since closing over unread bytes would tear the answer down. */
function turnAway(socket: Socket): void {
  const late = setTimeout(() => socket.destroy(), TURN_AWAY_MS)
  socket.on('error', () => undefined).on('close', () => clearTimeout(late))
  socket
    .resume()
    .end(encodeReply(refusal('STATE_BUSY', `${MAX_CONTROL_CONNECTIONS} other commands are being answered`)))
}

function refusal(code: string, message: string): object {
  return { error: { code, message } }
}

function encodeReply(reply: unknown): string {
  return `${JSON.stringify(reply)}\n`
}
