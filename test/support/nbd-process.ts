import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { onTestFinished } from 'vitest'
import { temporaryDirectory } from './temporary.ts'

const START_MS = 10_000
const END_MS = 5_000

/** A real NBD server, or QEMU, in a process of its own. */
export interface NbdProcess {
  readonly child: ChildProcess
  /** Path of its Unix socket. */
  readonly socket: string
  /** `nbd+unix:///EXPORT?socket=…`. */
  uri(exportName?: string): string
  /** Resolves when it is gone. */
  end(signal?: NodeJS.Signals): Promise<void>
}

/** Starts a program that serves NBD on a Unix socket, and waits until it accepts connections. Ended with the test. */
export async function startNbd(command: string, args: (socket: string) => readonly string[]): Promise<NbdProcess> {
  const socket = `${await temporaryDirectory()}/nbd.sock`
  const child = spawn(command, args(socket), { stdio: ['ignore', 'ignore', 'pipe'] })
  const gone = once(child, 'exit')
  let said = ''
  child.stderr?.on('data', (data: Buffer) => {
    said += data.toString()
  })
  const end = async (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> => {
    child.kill(signal)
    await gone
  }
  onTestFinished(async () => {
    // Not killed at once: nbdkit removes its scripts when it is asked to end.
    const late = setTimeout(() => child.kill('SIGKILL'), END_MS)
    await end()
    clearTimeout(late)
  })
  for (const deadline = Date.now() + START_MS; !(await accepts(socket)); await sleep(10)) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`${command} does not serve: ${said}`)
  }
  return { child, socket, end, uri: (exportName = '') => `nbd+unix:///${exportName}?socket=${socket}` }
}

/** nbdkit with these arguments (plugin, filters, parameters). */
export function nbdkit(...args: string[]): Promise<NbdProcess> {
  return startNbd('nbdkit', (socket) => ['--foreground', '--unix', socket, ...args])
}

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path)
    probe.on('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.on('error', () => resolve(false))
  })
}
