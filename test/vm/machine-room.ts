import { type ChildProcess, spawn } from 'node:child_process'
import type { Lab, MeshProcess } from '../../tools/lab/local-lab.ts'
import { Lan } from '../support/lan.ts'

/** The master’s address in a room. */
export const BOSS = '10.77.0.1'

/**
 * A network that nothing outside can see: a computer `boss`, a DHCP server of the school, a socket for one virtual machine, and others that are
 * added. `close` ends and removes all of it.
 */
export class MachineRoom {
  readonly lan = new Lan(`mesh-vm-${process.pid}-`)
  readonly #lab: Lab
  #school: ChildProcess | undefined
  readonly #onExit = (): void => {
    this.#school?.kill('SIGKILL')
    this.lan.closeNow()
  }

  private constructor(lab: Lab) {
    this.#lab = lab
    process.once('exit', this.#onExit)
  }

  /** A room of the machines of a lab. */
  static async open(lab: Lab): Promise<MachineRoom> {
    const room = new MachineRoom(lab)
    try {
      await room.lan.open()
      await room.add('boss', `${BOSS}/24`)
      await room.add('school', '10.77.0.2/24')
      await room.lan.ip('hub', 'tuntap', 'add', 'pc', 'mode', 'tap')
      await room.lan.ip('hub', 'link', 'set', 'dev', 'pc', 'master', 'br0', 'up')
      room.#school = room.#startSchool()
      return room
    } catch (error) {
      await room.close()
      throw error
    }
  }

  /** One more computer. */
  async add(name: string, address: string): Promise<void> {
    await this.lan.addMachine(name)
    await this.lan.cable(name, address)
  }

  /** QEMU’s options of a card that is cabled to the room; `more`: of the card itself. The machine is started {@link through}. */
  card(...more: string[]): string[] {
    return [
      ...['-netdev', 'tap,id=lan,ifname=pc,script=no,downscript=no'],
      ...['-device', ['virtio-net-pci', 'netdev=lan', ...more].join(',')],
    ]
  }

  /** How a machine with a card is started. */
  get through(): string[] {
    return this.lan.through('hub')
  }

  /** Runs `mesh ARGS` on a computer, with the state directory of a machine of the lab. */
  mesh(computer: string, machine: string, ...args: string[]): MeshProcess {
    return this.lan.mesh(computer, ...args, '--state', this.#lab.path(machine))
  }

  /** `mesh boot serve` on the master’s computer, with the agent in a folder of the lab. */
  async serve(agent: string, ...more: string[]): Promise<MeshProcess> {
    const serving = this.mesh('boss', 'master', 'boot', 'serve', this.#lab.path(agent), ...more)
    await serving.event('boot-serving')
    return serving
  }

  /** From now on there is no DHCP server. */
  closeSchool(): void {
    this.#school?.kill('SIGKILL')
  }

  async close(): Promise<void> {
    this.closeSchool()
    await this.lan.close()
    process.off('exit', this.#onExit)
  }

  #startSchool(): ChildProcess {
    const [program = '', ...rest] = [
      ...[...this.lan.through('school'), 'dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--port=0'],
      ...['--user=root', '--pid-file=', '--log-facility=/dev/null', '--leasefile-ro', '--no-ping'],
      '--dhcp-range=10.77.0.150,10.77.0.170',
    ]
    return spawn(program, rest, { stdio: 'ignore' })
  }
}
