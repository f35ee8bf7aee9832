import { connect } from 'node:net'
import { dirname } from 'node:path'
import { readDocument } from '../../protocol/document.ts'
import { ERROR_CODES, errnoOf, isMeshError, MeshError } from '../../protocol/errors.ts'
import { anyText, type Check, either, object } from '../../protocol/json-shape.ts'
import { isOwn, socketPlaces } from '../state/socket-place.ts'
import { CONTROL_DEADLINE_MS, MAX_CONTROL_BYTES } from './limits.ts'

const isWords = anyText(MAX_CONTROL_BYTES)
const isFailure = object({ error: object({ code: isWords, message: isWords }) })

/**
 * Calls a method of the command that runs on this state directory, which may be of another version. `result` is what the
 * method must answer. Errors: STATE_NOT_RUNNING if no command runs, STATE_UNWRITABLE if it belongs to another user,
 * PROTOCOL_VIOLATION and FORMAT_NEWER for another answer, and those of the method. A failure there that is no MeshError
 * comes back as a plain Error.
 */
export async function callControl<T>(
  stateDir: string,
  method: string,
  result: Check<T>,
  params: object = {},
): Promise<T> {
  const json = await exchange(stateDir, `${JSON.stringify({ method, params })}\n`)
  const name = `the answer to ${method} of the command running on ${stateDir}`
  const reply = readDocument({ name, shape: either(isFailure, object({ result })), fault: 'PROTOCOL_VIOLATION' }, json)
  if (!('error' in reply)) return reply.result
  const { code, message } = reply.error
  const known = ERROR_CODES.find((one) => one === code)
  // A fault of the running command itself, or a code of a newer version, has no advice here.
  throw known === undefined ? new Error(message) : new MeshError(known, message)
}

/** Asks at each place where the socket may be. */
async function exchange(stateDir: string, line: string): Promise<string> {
  const [first, ...others] = socketPlaces(stateDir, 'control.sock')
  try {
    return await exchangeAt(first!, stateDir, line)
  } catch (error) {
    const other = others.find((path) => isOwn(dirname(path)))
    if (other === undefined || !isMeshError(error, 'STATE_NOT_RUNNING')) throw error
    return exchangeAt(other, stateDir, line)
  }
}

function exchangeAt(path: string, stateDir: string, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => reject(asMeshError(cause, stateDir))
    const socket = connect(path)
    let text = ''
    socket.setTimeout(CONTROL_DEADLINE_MS, () => {
      socket.destroy(new MeshError('REQUEST_TIMEOUT', `the command running on ${stateDir} did not answer`))
    })
    socket.setEncoding('utf8')
    socket.on('connect', () => socket.write(line))
    socket.on('data', (chunk: string) => {
      text += chunk
      if (text.length > MAX_CONTROL_BYTES) socket.destroy(new Error('the answer is too long'))
    })
    socket.on('error', fail)
    socket.on('close', () => {
      if (text.endsWith('\n')) resolve(text)
      else fail(new MeshError('STATE_NOT_RUNNING', `the command running on ${stateDir} stopped before it answered`))
    })
  })
}

function asMeshError(error: unknown, stateDir: string): unknown {
  const code = errnoOf(error)
  if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR') {
    return new MeshError('STATE_NOT_RUNNING', `no mesh command is running on ${stateDir}`, { cause: error })
  }
  if (code === 'EACCES')
    return new MeshError('STATE_UNWRITABLE', `${stateDir} belongs to another user`, { cause: error })
  return error
}
