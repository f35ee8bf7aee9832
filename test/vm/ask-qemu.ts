import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

const [CONNECT_TRIES, CONNECT_PAUSE_MS] = [300, 100]

interface Answer {
  readonly return?: unknown
  readonly error?: { readonly desc: string }
}

/**
 * Gives a running QEMU one command of its machine protocol (https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html), and returns the
 * answer. `socket`: path of its Unix socket. Errors: QEMU is not there, or refuses.
 */
export async function askQemu(socket: string, command: string, args: object = {}): Promise<unknown> {
  const connection = await connected(socket)
  try {
    const lines = createInterface({ input: connection })[Symbol.asyncIterator]()
    await lines.next() // The greeting.
    for (const [execute, given] of [
      ['qmp_capabilities', {}],
      [command, args],
    ] as const) {
      connection.write(`${JSON.stringify({ execute, arguments: given })}\n`)
      const answer = await answerIn(lines)
      if (answer.error !== undefined) throw new Error(`QEMU refuses ${execute}: ${answer.error.desc}`)
      if (execute === command) return answer.return
    }
  } finally {
    connection.destroy()
  }
  return undefined
}

/** A QEMU that has just been started opens its socket a moment later. */
async function connected(socket: string): Promise<Socket> {
  for (let tries = 1; ; tries++) {
    const connection = createConnection(socket)
    try {
      await once(connection, 'connect')
      return connection
    } catch (error) {
      connection.destroy()
      if (tries === CONNECT_TRIES) throw error
      await sleep(CONNECT_PAUSE_MS)
    }
  }
}

/** Events may stand between the answers. */
async function answerIn(lines: AsyncIterator<string>): Promise<Answer> {
  for (;;) {
    const { value, done } = await lines.next()
    if (done === true) throw new Error('QEMU ended')
    const answer = JSON.parse(value) as Answer
    if ('return' in answer || 'error' in answer) return answer
  }
}
