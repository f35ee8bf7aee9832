import { spawnSync } from 'node:child_process'
import { afterEach } from 'vitest'
import { MeshProcess } from '../../tools/lab/local-lab.ts'
import { runTool } from '../../tools/lab/run-tool.ts'

/** Machines in network namespaces, cabled to one switch. Nothing of it can be seen from outside. */
export class Lan {
  readonly #prefix: string
  readonly #spaces: string[] = []
  readonly #running: MeshProcess[] = []

  /** `prefix`: how the names of the namespaces begin. */
  constructor(prefix: string) {
    this.#prefix = prefix
  }

  /** The namespace of a machine, or of the switch, `hub`. */
  space(name: string): string {
    return `${this.#prefix}${name}`
  }

  /** Runs `ip ARGS` in a namespace. */
  ip(name: string, ...args: string[]): Promise<string> {
    return runTool('ip', ['-n', this.space(name), ...args])
  }

  /** Makes the switch. */
  async open(): Promise<void> {
    await this.#addSpace('hub')
    await this.ip('hub', 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0')
    await this.ip('hub', 'link', 'set', 'br0', 'up')
  }

  /** A machine without any network, not even loopback. */
  async addMachine(name: string): Promise<void> {
    await this.#addSpace(name)
    // Addresses can be used at once.
    await this.#write(name, 'net/ipv6/conf/all/accept_dad', '0')
    await this.#write(name, 'net/ipv6/conf/default/accept_dad', '0')
  }

  /** Switches loopback on, and cables a card `eth0` to the switch. There is no route but to its own subnets. */
  async cable(name: string, ...addresses: string[]): Promise<void> {
    await this.ip(name, 'link', 'set', 'lo', 'up')
    await this.ip(name, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', name, 'netns', this.space('hub'))
    await this.ip('hub', 'link', 'set', 'dev', name, 'master', 'br0', 'up')
    for (const address of addresses) {
      await this.ip(name, 'addr', 'add', address, 'dev', 'eth0', ...(address.includes(':') ? ['nodad'] : []))
    }
    await this.ip(name, 'link', 'set', 'eth0', 'up')
  }

  /** How a program is run on a machine. */
  through(name: string): string[] {
    return ['ip', 'netns', 'exec', this.space(name)]
  }

  /** Starts `mesh ARGS --json` on a machine. */
  mesh(name: string, ...args: string[]): MeshProcess {
    const started = new MeshProcess([...args, '--json'], {}, { through: this.through(name) })
    this.#running.push(started)
    return started
  }

  /** Ends all processes, removes all namespaces. */
  async close(): Promise<void> {
    await Promise.all(this.#running.map((one) => one.stop('SIGKILL')))
    for (const space of this.#spaces) await runTool('ip', ['netns', 'del', space]).catch(() => undefined)
  }

  /** The same at once, for a process that is about to end. */
  closeNow(): void {
    for (const one of this.#running) one.child.kill('SIGKILL')
    for (const space of this.#spaces) spawnSync('ip', ['netns', 'del', space], { stdio: 'ignore' })
  }

  async #addSpace(name: string): Promise<void> {
    await runTool('ip', ['netns', 'add', this.space(name)])
    this.#spaces.push(this.space(name))
  }

  async #write(name: string, setting: string, value: string): Promise<void> {
    await runTool('ip', ['netns', 'exec', this.space(name), 'sh', '-c', `echo ${value} > /proc/sys/${setting}`])
  }
}

/** A switch for each test, which is gone afterwards with all that hangs on it. */
export function useLan(): () => Promise<Lan> {
  let count = 0
  const opened: Lan[] = []
  afterEach(async () => {
    for (const lan of opened.splice(0)) await lan.close()
  })
  return async () => {
    const lan = new Lan(`mesh-${process.pid}-${count++}-`)
    opened.push(lan)
    await lan.open()
    return lan
  }
}
