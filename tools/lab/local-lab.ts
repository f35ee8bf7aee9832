/**
 * The folder tools/lab is what demo, benchmarks, the lab and tests share.
 * - `local-lab` starts `mesh` processes on the loopback interface and waits for their events.
 * - `resetting-room` is machines that can be reset; `session` is what a user does to a disk; `compare` compares disks.
 * - `run-tool` runs programs of the system and knows their Debian packages; `random` is seeded.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { readJson } from '../../protocol/document.ts'
import { anyText, type Check, object } from '../../protocol/json-shape.ts'
import { NODE_FLAGS } from './node-flags.ts'

const SOURCE = join(import.meta.dirname, '../mesh.ts')

/** One JSON line of a command. */
export interface MeshEvent {
  readonly event: string
  readonly [key: string]: unknown
}

const isEvent = object({ event: anyText(1024) })
const isMeshEvent: Check<MeshEvent> = (value): value is MeshEvent => isEvent(value)

/** How a command ended, and all that it printed. */
export interface Outcome {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly events: readonly MeshEvent[]
  readonly stdout: string
  readonly stderr: string
  /** The last JSON line: the command's result. */
  readonly result: MeshEvent | undefined
}

/** What is run as `mesh`: the source if no bundle is named, with its own flags of Node if no others are. */
interface Launch {
  readonly entry: string | undefined
  readonly flags: readonly string[] | undefined
}

/** One running `mesh` process whose JSON events can be waited for. */
export class MeshProcess {
  readonly child: ChildProcess
  readonly exited: Promise<Outcome>
  readonly events: MeshEvent[] = []
  #stdout = ''
  #stderr = ''
  #waiters: (() => void)[] = []
  #ended = false

  /** `through`: a command that runs it (such as faketime); `uid`, `gid`: the user it runs as; `entry`: a bundle; `flags` of Node. */
  constructor(
    args: readonly string[],
    env: NodeJS.ProcessEnv = {},
    as: Partial<Launch> & { uid?: number; gid?: number; through?: readonly string[] } = {},
  ) {
    const [program = '', ...rest] = [
      ...(as.through ?? []),
      process.execPath,
      ...(as.flags ?? NODE_FLAGS),
      as.entry ?? SOURCE,
      ...args,
    ]
    const { uid, gid } = as
    this.child = spawn(program, rest, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
      ...(uid === undefined || gid === undefined ? {} : { uid, gid }),
    })
    this.child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString()
    })
    const lines = createInterface({ input: this.child.stdout as NodeJS.ReadableStream })
    lines.on('line', (line) => {
      this.#stdout += `${line}\n`
      if (line.startsWith('{')) this.events.push(readJson('an event', isMeshEvent, line))
      this.#wake()
    })
    this.exited = new Promise((resolve) => {
      this.child.on('close', (code, signal) => {
        this.#ended = true
        this.#wake()
        const { events } = this
        resolve({ code, signal, events, stdout: this.#stdout, stderr: this.#stderr, result: events.at(-1) })
      })
    })
  }

  #wake(): void {
    for (const waiter of this.#waiters.splice(0)) waiter()
  }

  /** The first event of this name; fails with what the process printed if it ends without one. */
  async event(name: string): Promise<MeshEvent> {
    const found = await this.when((event) => event.event === name)
    if (found === undefined) throw new Error(`mesh ended without a ${name} event:\n${this.#stdout}\n${this.#stderr}`)
    return found
  }

  /** The first event that `wanted` accepts; undefined if the process ends without one. */
  async when(wanted: (event: MeshEvent) => boolean): Promise<MeshEvent | undefined> {
    for (;;) {
      const found = this.events.find(wanted)
      if (found !== undefined || this.#ended) return found
      await new Promise<void>((resolve) => this.#waiters.push(resolve))
    }
  }

  /** Asks the process to stop, and waits for its end. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Outcome> {
    this.child.kill(signal)
    return this.exited
  }
}

/** A lab of real processes in one temporary directory; `close` ends every process and removes every file. */
export class Lab {
  readonly dir: string
  readonly #running = new Map<MeshProcess, string>()
  readonly #listen = new Map<string, string>()
  #closed = false

  readonly #launch: Partial<Launch>

  private constructor(dir: string, launch: Partial<Launch>) {
    this.dir = dir
    this.#launch = launch
  }

  /** `launch`: what is run as `mesh`. */
  static async open(launch: Partial<Launch> = {}): Promise<Lab> {
    return new Lab(await mkdtemp(join(tmpdir(), 'mesh-lab-')), launch)
  }

  path(...parts: string[]): string {
    return join(this.dir, ...parts)
  }

  /** Starts `mesh ARGS --json` with the state directory of `machine`. Each machine keeps one loopback address. */
  async start(machine: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<MeshProcess> {
    const address = this.#listen.get(machine) ?? `/ip4/127.0.0.1/tcp/${await freePort()}`
    this.#listen.set(machine, address)
    if (this.#closed) throw new Error('the lab is closed')
    const started = new MeshProcess(
      [...args, '--json', '--no-mdns', '--state', this.path(machine), '--listen', address],
      env,
      this.#launch,
    )
    this.#running.set(started, machine)
    void started.exited.then(() => this.#running.delete(started))
    return started
  }

  async run(machine: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
    return (await this.start(machine, args, env)).exited
  }

  /** Like {@link run}, and fails unless the exit code is 0; returns the result event. */
  async ok(machine: string, args: readonly string[]): Promise<MeshEvent> {
    const outcome = await this.run(machine, args)
    if (outcome.code !== 0 || outcome.result === undefined) {
      throw new Error(
        `mesh ${args.join(' ')} on ${machine} ended with ${outcome.code}:\n${outcome.stdout}\n${outcome.stderr}`,
      )
    }
    return outcome.result
  }

  /** Starts a process that serves (`seed`, `up`) and waits until it listens. */
  async serve(machine: string, args: readonly string[]): Promise<MeshProcess> {
    const started = await this.start(machine, args)
    await started.event('listening')
    return started
  }

  async invite(master: string, uses = 10): Promise<string> {
    return String((await this.ok(master, ['invite', '--uses', String(uses)])).token)
  }

  /** Stops what runs on a machine, and waits for it. */
  async stop(machine: string): Promise<void> {
    for (const [running, name] of this.#running) if (name === machine) await running.stop()
  }

  /** The loopback address `machine` listens on. */
  address(machine: string): string | undefined {
    return this.#listen.get(machine)
  }

  /** `keep` leaves the files. */
  async close(options: { keep?: boolean } = {}): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#running.keys()].map((running) => running.stop('SIGKILL')))
    if (options.keep !== true) await rm(this.dir, { recursive: true, force: true })
  }
}

/** A TCP port of the loopback interface that was free a moment ago. */
export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() =>
        typeof address === 'object' && address !== null ? resolve(address.port) : reject(new Error('no port')),
      )
    })
  })
}
