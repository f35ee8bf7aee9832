import assert from 'node:assert/strict'
import { copyFile, open, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { ERA_BLOCK_BYTES } from '../../node/writelog/limits.ts'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import type { Lab, MeshProcess } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { copyRange, makeAgent, makeSystem, ROOT_BYTES } from './boot-scenario.ts'
import { differing } from './compare-disks.ts'
import { bios, type FirmwareOptions, PLAIN_UEFI, uefi } from './firmware.ts'
import { BOSS, MachineRoom } from './machine-room.ts'
import { type GuestEvent, VirtualMachine } from './virtual-machine.ts'

const MIB = 1024 ** 2
const [ESP_MIB, STATE_MIB] = [320, 64]
/** Bytes of the machine’s disk. */
export const BARE_DISK_BYTES = 448 * MIB
const STATE_AT = (1 + ESP_MIB) * MIB
const ROOT_AT = STATE_AT + STATE_MIB * MIB
/** Firmware, drivers, a network and libp2p under emulation, on a machine that does other things. */
export const DEADLINE_MS = 900_000
const UPDATE_TRIES = 4
/** Machines of the room that hold the image. The master is spared as long as others have what is wanted. */
export const HOLDERS = ['second', 'third'] as const
const MEMORY_MIB = 1024

/** From what a bare machine starts: by network, from a CD, from a USB stick, or as QEMU itself loads the agent. */
export type Medium = 'pxe-bios' | 'pxe-uefi' | 'iso' | 'usb' | 'direct-bios' | 'direct-uefi'

/** What the machine is made of. */
export interface BareParts {
  readonly kernel: KernelFiles
  readonly lab: Lab
}

/** The disk of the machine, which begins with zeros: QEMU’s -drive option of it, and a file with its content as it is now. */
interface MachineDisk {
  readonly drive: string
  readonly saved: () => Promise<string>
}

/** A machine that begins with a bare disk, in a room with a master that publishes a system, an agent and a layout, and the HOLDERS. */
export class BareMachine {
  readonly #lab: Lab
  readonly #kernel: KernelFiles
  readonly #room: MachineRoom
  readonly #medium: Medium
  /** Path of a file of the agent. */
  readonly #agent: (name: string) => string
  readonly #disk: MachineDisk
  /** What the master runs. */
  #master: MeshProcess
  #variables: FirmwareOptions | undefined
  #sessions = 0

  private constructor(
    { lab, kernel }: BareParts,
    room: MachineRoom,
    own: {
      readonly medium: Medium
      readonly agent: (name: string) => string
      readonly disk: MachineDisk
      readonly master: MeshProcess
    },
  ) {
    this.#lab = lab
    this.#kernel = kernel
    this.#room = room
    this.#medium = own.medium
    this.#agent = own.agent
    this.#disk = own.disk
    this.#master = own.master
  }

  static async open(parts: BareParts, random: Random, medium: Medium, disk?: MachineDisk): Promise<BareMachine> {
    const { lab, kernel } = parts
    const room = await MachineRoom.open(lab)
    try {
      await makeSystem(lab.path('model.img'), lab.dir, random)
      const seeding = room.mesh('boss', 'master', 'seed', lab.path('model.img'), '--image', 'root')
      await seeding.event('listening')
      await writeFile(lab.path('agent.toml'), `[boot]\nmaster = ["/ip4/${BOSS}/tcp/7433"]\n`)
      const config = lab.path('agent.toml')
      const options = { machine: 'master', config, commandLine: 'console=ttyS0', diskImage: true }
      const built = await makeAgent(lab, kernel, options)
      const agent = (name: string): string => built.files.find((file) => file.path.endsWith(name))!.path
      await lab.ok('master', ['seed', agent('agent.efi'), '--image', 'agent'])
      await setLayout(lab)
      for (const [at, name] of HOLDERS.entries()) await addHolder(lab, room, { name, address: `10.77.0.${3 + at}/24` })
      return new BareMachine(parts, room, { medium, agent, disk: disk ?? (await fileDisk(lab)), master: seeding })
    } catch (error) {
      await room.close()
      throw error
    }
  }

  close(): Promise<void> {
    return this.#room.close()
  }

  /** Path of a file of the agent. */
  agentFile(name: string): string {
    return this.#agent(name)
  }

  /** `mesh boot serve`, as long as the work goes on. */
  async serving<T>(work: () => Promise<T>): Promise<T> {
    const serving = await this.#room.serve('agent-of-master')
    try {
      return await work()
    } finally {
      await serving.stop()
    }
  }

  /** Whether the machine has a BIOS; else it has UEFI. */
  get isBios(): boolean {
    return this.#medium.endsWith('bios') || this.#medium === 'usb'
  }

  /** Starts with its medium. A network card is cabled. */
  async switchOnBare(): Promise<VirtualMachine> {
    const { options, card } = await this.#firmware(this.#medium === 'pxe-bios' ? 'n' : 'c')
    const network = this.#room.card(...card)
    if (this.#medium.startsWith('direct'))
      return this.#machine({ firmware: options, network, kernel: this.#kernel, initramfs: this.#agent('agent.img') })
    return this.#machine({ firmware: [...options, ...this.#drive()], network })
  }

  /** Starts from the disk, from this slot, until the system is up and has ended. With a network, something is fetched. */
  async start(slot: string, withNetwork = false): Promise<GuestEvent> {
    const guest = await this.fromDisk(withNetwork)
    if (!this.isBios) await guest.shown(`"lab-mesh agent ${slot.toUpperCase()}"`, DEADLINE_MS)
    const up = await this.up(guest)
    if (this.isBios) assert.equal(up.slot, slot)
    if (withNetwork) assert.match(String(up.said), /: [1-9]\d* blocks restored, [1-9]\d* fetched$/)
    return up
  }

  /** Starts from its disk. */
  async fromDisk(withNetwork: boolean): Promise<VirtualMachine> {
    const { options } = await this.#firmware('c')
    return this.#machine({ firmware: options, ...(withNetwork ? { network: this.#room.card('romfile=') } : {}) })
  }

  /** The system is up; it ends, and has left the disk as it was. */
  async up(guest: VirtualMachine): Promise<GuestEvent> {
    const up = await guest.event('up', DEADLINE_MS)
    await guest.ended()
    assert.equal(up.device, '/dev/mapper/lab')
    assert.equal(up.state, 'yes')
    assert.equal(await this.changed(), 0, 'the partition is the image')
    return up
  }

  /**
   * Somebody publishes an agent, and the machine starts until it is `done` with it. A restore that has to fetch hears of it, if it does not end
   * before. What a session dirties again comes from the stage, so each dirties something else.
   */
  async update(content: Uint8Array, done: (up: GuestEvent) => boolean): Promise<void> {
    await this.publish(content)
    for (let tries = 0; tries < UPDATE_TRIES; tries++) {
      await this.dirty()
      const up = await this.start('a', true)
      console.log(`    ${up.agent}`)
      if (done(up)) return
    }
    throw new Error('the machine did not hear of the new agent')
  }

  /** Publishes an agent. The file must not change while the master serves it. */
  async publish(content: Uint8Array): Promise<void> {
    await this.#master.stop()
    await writeFile(this.#agent('agent.efi'), content)
    const args = ['seed', this.#agent('agent.efi'), '--image', 'agent', '--once', '--force']
    const { code, stderr } = await this.#room.mesh('boss', 'master', ...args).exited
    assert.equal(code, 0, stderr)
    this.#master = this.#room.mesh('boss', 'master', 'up')
    await this.#master.event('listening')
  }

  /** A session that writes, until the plug is pulled. */
  async dirty(): Promise<void> {
    const session = await this.#machine({
      tell: { step: 'elsewhere', at: this.#sessions++ },
      kernel: this.#kernel,
      initramfs: this.#agent('agent.img'),
    })
    await session.event('written', DEADLINE_MS)
    await session.kill()
    assert.ok((await this.changed()) > 0)
  }

  /** QEMU’s options of the medium, if it is not the network. */
  #drive(): string[] {
    if (this.#medium !== 'iso' && this.#medium !== 'usb') return []
    const iso = `format=raw,readonly=on,if=none,id=medium,file=${this.#agent('agent.iso')}`
    return this.#medium === 'iso'
      ? ['-drive', `${iso},media=cdrom`, '-device', 'ide-cd,drive=medium']
      : ['-drive', iso, '-device', 'qemu-xhci', '-device', 'usb-storage,drive=medium,removable=on,bootindex=0']
  }

  /** UEFI keeps its variables. */
  async #firmware(from: 'c' | 'n'): Promise<FirmwareOptions> {
    if (this.isBios) return bios(from)
    this.#variables ??= await uefi(this.#lab, PLAIN_UEFI)
    return this.#variables
  }

  async #machine(options: Partial<Parameters<typeof VirtualMachine.start>[0]>): Promise<VirtualMachine> {
    const { network } = options
    return VirtualMachine.start({
      ...{ memory: MEMORY_MIB, tell: {}, drives: [this.#disk.drive] },
      ...(network === undefined ? {} : { through: this.#room.through }),
      ...options,
    })
  }

  /** How many blocks of the root partition are not those of the model. */
  async changed(): Promise<number> {
    const now = this.#lab.path('root.now')
    await copyRange(await this.#disk.saved(), ROOT_AT, now, ROOT_BYTES)
    return (await differing(this.#lab.path('model.img'), now, ERA_BLOCK_BYTES)).count
  }

  /** Who has delivered how many blocks, by the machine’s receipts. */
  async peersOfReceipts(): Promise<Record<string, number>> {
    const state = this.#lab.path('state.now')
    await copyRange(await this.#disk.saved(), STATE_AT, state, STATE_MIB * MIB)
    // The journal first.
    await runTool('e2fsck', ['-f', '-y', state]).catch(() => undefined)
    await runTool('mkdir', ['-p', this.#lab.path('pc1')])
    await runTool('debugfs', ['-R', `rdump / ${this.#lab.path('pc1')}`, state])
    const { receipts } = (await this.#lab.ok('pc1', ['receipts'])) as unknown as {
      receipts: { result: { peers: { name: string; blocks: number }[] } | null }[]
    }
    const peers = receipts.flatMap(({ result }) => result?.peers ?? [])
    return Object.fromEntries(peers.map(({ name, blocks }) => [name, blocks]))
  }
}

/** A machine of the room that holds the image, and serves it. */
async function addHolder(
  lab: Lab,
  room: MachineRoom,
  { name, address }: { readonly name: string; readonly address: string },
): Promise<void> {
  const disk = lab.path(`${name}.img`)
  await copyFile(lab.path('model.img'), disk)
  await room.add(name, address)
  const invited = await room.mesh('boss', 'master', 'invite').event('invitation')
  for (const args of [
    ['join', String(invited.token), '--disk', disk, '--name', name, '--image', 'root'],
    ['restore'],
  ]) {
    const { code, stderr } = await room.mesh(name, name, ...args).exited
    assert.equal(code, 0, stderr)
  }
  await room.mesh(name, name, 'up').event('listening')
}

async function setLayout(lab: Lab): Promise<void> {
  const partition = '[[partition]]\nimage = "root"\ntype = "root"\nsize = "48M"\ngrow = true\n'
  await writeFile(
    lab.path('layout.toml'),
    `esp = "${ESP_MIB}M"\nstate = "${STATE_MIB}M"\nagent = "agent"\n${partition}`,
  )
  await lab.ok('master', ['layout', 'set', lab.path('layout.toml')])
}

/** The code of the machine that waits; `holds`: what its disk holds. One that was switched off is listed for a while. */
export async function waiting(lab: Lab, holds = ''): Promise<string> {
  const deadline = Date.now() + DEADLINE_MS
  while (Date.now() < deadline) {
    const machines = (await lab.ok('master', ['machines'])).machines as unknown as { code: string; holds: string }[]
    const one = machines.find((machine) => machine.holds === holds)
    if (one !== undefined) return one.code
    await sleep(2000)
  }
  throw new Error('no machine asked to be let in')
}

async function fileDisk(lab: Lab): Promise<MachineDisk> {
  const path = lab.path('disk.img')
  await using file = await open(path, 'w')
  await file.truncate(BARE_DISK_BYTES)
  return { drive: `file=${path},format=raw`, saved: async () => path }
}
