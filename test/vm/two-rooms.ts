import { type ChildProcess, spawn } from 'node:child_process'
import type { Lab, MeshProcess } from '../../tools/lab/local-lab.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { Lan } from '../support/lan.ts'

export const ROOMS = [1, 2] as const
export type RoomNumber = (typeof ROOMS)[number]
/** The master’s address, in the first room. */
export const BOSS = '10.81.1.2'

/**
 * Two networks that nothing outside can see, and a router between them that is the DHCP server of both. In the first one stands a computer `boss`, in the
 * second one `desk`. `close` ends and removes all of it.
 */
export class TwoRooms {
  readonly #lab: Lab
  readonly #lans: Readonly<Record<RoomNumber, Lan>>
  #school: ChildProcess | undefined
  readonly #onExit = (): void => {
    this.#school?.kill('SIGKILL')
    for (const room of ROOMS) this.#lans[room].closeNow()
  }

  private constructor(lab: Lab) {
    this.#lab = lab
    this.#lans = { 1: new Lan(`mesh-vm-${process.pid}-1-`), 2: new Lan(`mesh-vm-${process.pid}-2-`) }
    process.once('exit', this.#onExit)
  }

  /** Rooms of the machines of a lab. */
  static async open(lab: Lab): Promise<TwoRooms> {
    const rooms = new TwoRooms(lab)
    try {
      for (const room of ROOMS) await rooms.#lans[room].open()
      await rooms.#route()
      await rooms.#add(1, 'boss', BOSS)
      await rooms.#add(2, 'desk', '10.81.2.2')
      return rooms
    } catch (error) {
      await rooms.close()
      throw error
    }
  }

  /** Runs `mesh ARGS` on a computer of a room, with the state directory of a machine of the lab. */
  mesh(room: RoomNumber, computer: string, machine: string, ...args: string[]): MeshProcess {
    return this.#lans[room].mesh(computer, ...args, '--state', this.#lab.path(machine))
  }

  /** QEMU’s options of a card that is cabled to a room. The machine is started {@link through} its room. */
  async card(room: RoomNumber, name: string, mac: string): Promise<string[]> {
    const lan = this.#lans[room]
    await lan.ip('hub', 'tuntap', 'add', name, 'mode', 'tap')
    await lan.ip('hub', 'link', 'set', 'dev', name, 'master', 'br0', 'up')
    return [
      ...['-netdev', `tap,id=lan,ifname=${name},script=no,downscript=no`],
      ...['-device', `virtio-net-pci,netdev=lan,mac=${mac}`],
    ]
  }

  /** How a machine with a card is started. */
  through(room: RoomNumber): string[] {
    return this.#lans[room].through('hub')
  }

  async close(): Promise<void> {
    this.#school?.kill('SIGKILL')
    for (const room of ROOMS) await this.#lans[room].close()
    process.off('exit', this.#onExit)
  }

  async #add(room: RoomNumber, name: string, address: string): Promise<void> {
    const lan = this.#lans[room]
    await lan.addMachine(name)
    await lan.cable(name, `${address}/24`)
    await lan.ip(name, 'route', 'add', 'default', 'via', `10.81.${room}.1`)
  }

  /** The router, with a card in each room. */
  async #route(): Promise<void> {
    const [first, second] = [this.#lans[1], this.#lans[2]]
    await first.addMachine('router')
    await first.cable('router', '10.81.1.1/24')
    const peer = ['peer', 'name', 'router', 'netns', second.space('hub')]
    await first.ip('router', 'link', 'add', 'eth1', 'type', 'veth', ...peer)
    await first.ip('router', 'addr', 'add', '10.81.2.1/24', 'dev', 'eth1')
    await first.ip('router', 'link', 'set', 'eth1', 'up')
    await second.ip('hub', 'link', 'set', 'dev', 'router', 'master', 'br0', 'up')
    const [program = '', ...rest] = first.through('router')
    await runTool(program, [...rest, 'sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward'])
    const dnsmasq = [
      ...['dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--port=0', '--user=root', '--pid-file='],
      ...['--log-facility=/dev/null', '--leasefile-ro', '--no-ping'],
      ...ROOMS.map((room) => `--dhcp-range=10.81.${room}.100,10.81.${room}.150`),
    ]
    this.#school = spawn(program, [...rest, ...dnsmasq], { stdio: 'ignore' })
  }
}
