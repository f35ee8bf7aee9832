import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFile, open, readFile, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { ERA_BLOCK_BYTES } from '../../node/writelog/limits.ts'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import { makeMenuFacts } from '../../tools/cli/boot/menu-facts.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { copyRange, makeAgent, makeSystem, ROOT_BYTES } from './boot-scenario.ts'
import { differing } from './compare-disks.ts'
import { eachOther } from './each-other.ts'
import { makeDisk, makeStatePartition, prepareMachine } from './prepared-disk.ts'
import { keepPicture } from './screens.ts'
import { type GuestEvent, VirtualMachine } from './virtual-machine.ts'

const MIB = 1024 ** 2
const [ESP_BYTES, STATE_BYTES] = [7 * MIB, 64 * MIB]
/** A kernel, a program of 110 MB and a restore under emulation, and a wait of 45 s for a network, on a machine that does other things. */
const DEADLINE_MS = 600_000
const CARD = 'card'
/** Names of QEMU’s keys, too. */
const PASSWORD = 'technician'

interface Parts {
  readonly kernel: KernelFiles
  readonly lab: Lab
}

/** What a machine is switched on with. */
interface SwitchedOn {
  readonly step?: 'idle' | 'elsewhere'
  /** MiB at which a session writes. */
  readonly at?: number
  readonly isCabled?: boolean
  readonly agent?: string
  readonly disk?: string
}

/** One machine of a lab whose network fails in the ways in which networks do. */
class Room {
  readonly #parts: Parts
  readonly #image: string
  readonly #disk: string
  readonly #rootAt: number
  readonly #agent: string
  #starts = 0

  constructor(parts: Parts, facts: { image: string; disk: string; rootAt: number; agent: string }) {
    this.#parts = parts
    ;[this.#image, this.#disk, this.#rootAt, this.#agent] = [facts.image, facts.disk, facts.rootAt, facts.agent]
  }

  async switchOn(how: SwitchedOn = {}): Promise<VirtualMachine> {
    const { step = 'idle', at = 0, isCabled = true, agent = this.#agent, disk = this.#disk } = how
    const { kernel, lab } = this.#parts
    const guest = VirtualMachine.start({
      kernel,
      initramfs: agent,
      memory: 768,
      tell: { step, at },
      drives: [`file=${disk},format=raw`],
      network: ['-netdev', 'user,id=lan', '-device', `virtio-net-pci,id=${CARD},netdev=lan,romfile=`],
      front: lab.path(`front-${this.#starts++}`),
    })
    if (!isCabled) await guest.cable(CARD, false)
    return guest
  }

  /** Pieces of the root that are not those of the model. */
  async changed(): Promise<number> {
    const now = this.#parts.lab.path('root.now')
    await copyRange(this.#disk, this.#rootAt, now, ROOT_BYTES)
    return (await differing(this.#image, now, ERA_BLOCK_BYTES)).count
  }

  /** A session writes 1 MiB at this place, and is cut off. */
  async session(guest: VirtualMachine): Promise<{ restored: number; fetched: number }> {
    const said = saidBy(await guest.event('up', DEADLINE_MS))
    await guest.event('written', DEADLINE_MS)
    await guest.kill()
    assert.ok((await this.changed()) > 0)
    return said
  }
}

/** Cable out, master off, nobody who has a block, and an agent of another site. MESH_NETWORK names some of these only. */
export async function networkScenario(parts: Parts, random: Random): Promise<string> {
  const { lab } = parts
  const { room, agent, other } = await makeRoom(parts, random)
  const wanted = process.env.MESH_NETWORK?.split(',')
  const told: string[] = []
  for (const [name, part] of [
    ['cable', () => cableOut(room)],
    ['master', () => eachOther({ ...parts, agent }, random)],
    ['nobody', () => nobodyHas(room, lab)],
    ['site', () => wrongSite(room, lab, other)],
  ] as const)
    if (wanted?.includes(name) !== false) told.push(await part())
  return told.join('; ')
}

async function makeRoom(parts: Parts, random: Random): Promise<{ room: Room; agent: string; other: string }> {
  const { lab } = parts
  const [image, disk, state] = [lab.path('model.img'), lab.path('disk.img'), lab.path('state.img')]
  await makeSystem(image, lab.dir, random)
  await lab.serve('master', ['seed', image, '--image', 'root'])
  await copyFile(image, lab.path('other.img'))
  await lab.ok('other', ['join', await lab.invite('master'), '--disk', lab.path('other.img'), '--name', 'other'])
  await lab.ok('other', ['restore'])
  await lab.serve('other', ['up'])
  const peers = ['master', 'other']
  await prepareMachine(lab, { state: 'pc', name: 'pc', image: 'root', content: image, disk: '/dev/vda3', peers })
  const agent = await agentOf('master', parts)
  await makeStatePartition(state, lab.path('pc'), STATE_BYTES)
  const [, , rootAt] = await makeDisk(disk, [
    { name: 'lab-esp', bytes: ESP_BYTES, type: 'ef00' },
    { name: 'lab-state', bytes: STATE_BYTES, content: state },
    { name: 'lab-root', bytes: ROOT_BYTES, content: image },
  ])
  // Another site on the same network.
  await writeFile(lab.path('small.img'), random.bytes(MIB))
  await lab.ok('stranger', ['seed', lab.path('small.img'), '--image', 'root', '--site', 'annex', '--once'])
  return {
    room: new Room(parts, { image, disk, rootAt: rootAt!, agent }),
    agent,
    other: await agentOf('stranger', parts),
  }
}

/** An agent that knows where the master of the lab is, whatever its own site is. */
async function agentOf(machine: string, { kernel, lab }: Parts): Promise<string> {
  const config = lab.path('agent.toml')
  const port = /\d+$/.exec(lab.address('master')!)![0]
  await writeFile(config, `[boot]\nmaster = ["/ip4/10.0.2.2/tcp/${port}"]\n`)
  const { files } = await makeAgent(lab, kernel, { machine, config, menu: await makeMenuFacts(PASSWORD, true) })
  return files.find(({ path }) => path.endsWith('agent.img'))!.path
}

async function cableOut(room: Room): Promise<string> {
  for (let starts = 0; starts < 2; starts++) await upAndOff(await room.switchOn())
  const clean = await room.session(await room.switchOn({ step: 'elsewhere', at: 0, isCabled: false }))
  assert.deepEqual(clean, { restored: 0, fetched: 0 })
  // The first session is undone from others, the second one from what the stage has kept of the first.
  const first = await room.session(await room.switchOn({ step: 'elsewhere', at: 0 }))
  assert.ok(first.fetched > 0)
  const again = await room.session(await room.switchOn({ step: 'elsewhere', at: 4, isCabled: false }))
  assert.ok(again.restored > 0)
  assert.equal(again.fetched, 0)

  const held = await room.switchOn({ isCabled: false })
  const screen = await held.shown('Code: PEERS_UNREACHABLE', DEADLINE_MS)
  await keepPicture(held, 'cable-out')
  assert.match(screen, /This computer cannot start now\./)
  assert.match(screen, /Check the network cable, and switch on another/)
  assert.ok((await room.changed()) > 0)
  // Somebody has to come, and to find the cable.
  await sleep(60_000)
  await held.cable(CARD, true)
  await held.press('ret')
  const { fetched } = await upAndOff(held)
  assert.ok(fetched > 0)
  assert.equal(await room.changed(), 0)
  return `cable out: clean, up; dirty where the stage knows the blocks, ${again.restored} restored, up; dirty elsewhere, held with PEERS_UNREACHABLE; cable in and Enter, ${fetched} fetched, up`
}

async function nobodyHas(room: Room, lab: Lab): Promise<string> {
  await lab.stop('master')
  await room.session(await room.switchOn({ step: 'elsewhere', at: 8 }))
  await lab.stop('other')
  const theirs = lab.path('other.img')
  const right = await readFile(theirs)
  await copyFile(lab.path('root.now'), theirs)
  await lab.serve('other', ['up'])
  const guest = await room.switchOn()
  const screen = await guest.shown('Code: BLOCKS_UNAVAILABLE', DEADLINE_MS)
  await keepPicture(guest, 'nobody-has')
  assert.match(screen, /This computer cannot start now\./)
  assert.ok((await room.changed()) > 0)
  await lab.stop('other')
  await writeFile(theirs, right)
  await lab.serve('other', ['up'])
  await throughMenu(guest)
  await upAndOff(guest)
  assert.equal(await room.changed(), 0)
  return 'nobody has a block: held with BLOCKS_UNAVAILABLE; another machine is switched on, “try again” of the menu, up'
}

/** A technician opens the menu at the keyboard, with a wrong password first, and chooses to try again. */
async function throughMenu(guest: VirtualMachine): Promise<void> {
  await guest.press('m')
  await guest.shown('Password, then Enter.', DEADLINE_MS)
  for (const key of 'wrong') await guest.press(key)
  await guest.press('ret')
  await guest.shown('Wrong password.', DEADLINE_MS)
  await guest.shown('Password, then Enter.', DEADLINE_MS, 2)
  for (const key of PASSWORD) await guest.press(key)
  await guest.press('ret')
  await guest.shown('3  Shell', DEADLINE_MS)
  await keepPicture(guest, 'menu')
  await guest.press('1')
}

async function wrongSite(room: Room, lab: Lab, agent: string): Promise<string> {
  await lab.stop('master')
  await lab.serve('master', ['up'])
  const disk = lab.path('disk.img')
  const before = await sumOf(disk)
  const guest = await room.switchOn({ agent })
  const screen = await guest.shown('Code: STATE_OTHER_SITE', DEADLINE_MS)
  await keepPicture(guest, 'other-site')
  assert.match(screen, /This computer belongs to another lab\./)
  await guest.kill()
  assert.equal(await sumOf(disk), before)
  const blank = lab.path('blank.img')
  await using file = await open(blank, 'w')
  await file.truncate(256 * MIB)
  const bare = await room.switchOn({ agent, disk: blank })
  await bare.shown('this master serves another site, lab', DEADLINE_MS)
  await keepPicture(bare, 'bare-other-site')
  await bare.kill()
  assert.equal(
    await sumOf(blank),
    createHash('sha256')
      .update(Buffer.alloc(256 * MIB))
      .digest('hex'),
  )
  const { machines } = await lab.ok('master', ['machines'])
  assert.deepEqual(machines, [])
  return 'an agent of another site: STATE_OTHER_SITE on a disk of this one, and a bare machine is let in by nobody; nothing is written'
}

async function upAndOff(guest: VirtualMachine): Promise<{ restored: number; fetched: number }> {
  const event = await guest.event('up', DEADLINE_MS)
  await guest.ended()
  return saidBy(event)
}

function saidBy({ device, said }: GuestEvent): { restored: number; fetched: number } {
  assert.equal(device, '/dev/mapper/lab')
  const [, restored, fetched] = /: (\d+) blocks restored, (\d+) fetched$/.exec(String(said)) ?? []
  assert.ok(fetched !== undefined, String(said))
  return { restored: Number(restored), fetched: Number(fetched) }
}

/** SHA-256 of a file, without a part of it. */
async function sumOf(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
}
