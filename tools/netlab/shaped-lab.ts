import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type MeshEvent, MeshProcess } from '../lab/local-lab.ts'
import { Network, type Side } from './network.ts'

const PORT = 7433
const BUNDLE = join(import.meta.dirname, '../../dist/mesh.js')
/** The environment of programs: `ip` and `tc` are not on every PATH. */
const ENV = { PATH: `${process.env.PATH}:/usr/sbin:/sbin` }

/** Machines of a {@link Network} with a disk and a state directory each, on which `mesh` runs. */
export class ShapedLab {
  readonly network: Network
  readonly #dir: string
  readonly #addresses = new Map<string, string>()
  readonly #running = new Map<MeshProcess, string>()
  readonly #signal: AbortSignal
  readonly #options: { readonly mdns: boolean; readonly built: boolean }
  readonly #onAbort = (): void => this.#kill()

  private constructor(
    network: Network,
    dir: string,
    signal: AbortSignal,
    options: { readonly mdns: boolean; readonly built: boolean },
  ) {
    this.network = network
    this.#dir = dir
    this.#signal = signal
    this.#options = options
    signal.addEventListener('abort', this.#onAbort)
  }

  /**
   * Makes the network. `mdns`: machines also look for one another by multicast DNS. `built`: they run the bundle, not
   * the sources.
   */
  static async open(
    options: { readonly mdns: boolean; readonly built: boolean },
    signal: AbortSignal,
  ): Promise<ShapedLab> {
    const network = await Network.open(signal)
    try {
      return new ShapedLab(network, await mkdtemp(join(tmpdir(), network.prefix)), signal, options)
    } catch (error) {
      await network.close()
      throw error
    }
  }

  path(...parts: string[]): string {
    return join(this.#dir, ...parts)
  }

  disk(machine: string): string {
    return this.path(`${machine}.img`)
  }

  async add(machine: string, number: number, side: Side): Promise<void> {
    this.#addresses.set(machine, await this.network.attach(machine, number, side))
  }

  /** Commands that are started on a machine from now on listen at this address. The router counts as a machine. */
  listenOn(machine: string, address: string): void {
    this.#addresses.set(machine, address)
  }

  /** Starts `mesh ARGS --json` on a machine. The command ends when this process ends, however that happens. */
  start(machine: string, args: readonly string[]): MeshProcess {
    this.#signal.throwIfAborted()
    const listen = `/ip4/${this.#addresses.get(machine)}/tcp/${PORT}`
    const common = ['--json', '--state', this.path(machine), '--listen', listen]
    const namespace = this.network.namespace(machine)
    const started = new MeshProcess([...args, ...common, ...(this.#options.mdns ? [] : ['--no-mdns'])], ENV, {
      through: ['setpriv', '--pdeathsig', 'KILL', 'ip', 'netns', 'exec', namespace],
      ...(this.#options.built ? { entry: BUNDLE } : {}),
    })
    this.#running.set(started, machine)
    void started.exited.then(() => this.#running.delete(started))
    return started
  }

  /** Runs a command to its end and returns its result; fails unless the exit code is 0. */
  async ok(machine: string, args: readonly string[]): Promise<MeshEvent> {
    const { code, result, stdout, stderr } = await this.start(machine, args).exited
    this.#signal.throwIfAborted()
    if (code === 0 && result !== undefined) return result
    throw new Error(`mesh ${args.join(' ')} on ${machine} ended with ${code}:\n${stdout}\n${stderr}`)
  }

  /** Starts a command that keeps running, and waits for its first `event`. */
  async serve(machine: string, args: readonly string[], event = 'serving'): Promise<MeshProcess> {
    const started = this.start(machine, args)
    await started.event(event)
    return started
  }

  async stop(machine: string): Promise<void> {
    await Promise.all([...this.#running].map(([running, name]) => (name === machine ? running.stop() : undefined)))
  }

  /** Ends what runs on a machine at once, as a power cut does. */
  async kill(machine: string): Promise<void> {
    const killed = [...this.#running].filter(([, name]) => name === machine).map(([running]) => running)
    for (const { child } of killed) child.kill('SIGKILL')
    await Promise.all(killed.map((running) => running.exited))
  }

  /** Process id of the command that runs on a machine. */
  running(machine: string): number | undefined {
    for (const [running, name] of this.#running) if (name === machine) return running.child.pid
    return undefined
  }

  async close(): Promise<void> {
    this.#signal.removeEventListener('abort', this.#onAbort)
    const ended = [...this.#running.keys()].map((running) => running.exited)
    this.#kill()
    await Promise.all(ended)
    await this.network.close()
    await rm(this.#dir, { recursive: true, force: true, maxRetries: 5 })
  }

  #kill(): void {
    for (const running of this.#running.keys()) running.child.kill('SIGKILL')
  }
}
