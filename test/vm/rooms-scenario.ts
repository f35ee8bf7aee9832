import assert from 'node:assert/strict'
import { open, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { ERA_BLOCK_BYTES } from '../../node/writelog/limits.ts'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { copyRange, makeAgent, makeSystem, ROOT_BYTES } from './boot-scenario.ts'
import { differing } from './compare-disks.ts'
import { bios } from './firmware.ts'
import { keepPicture } from './screens.ts'
import { BOSS, ROOMS, type RoomNumber, TwoRooms } from './two-rooms.ts'
import { VirtualMachine } from './virtual-machine.ts'

const MIB = 1024 ** 2
const BLOCK_BYTES = 64 * 1024
const [ESP_MIB, STATE_MIB] = [128, 64]
const ROOT_AT = (1 + ESP_MIB + STATE_MIB) * MIB
const DISK_BYTES = ROOT_AT + ROOT_BYTES + 16 * MIB
/** Six firmwares, kernels and restores under emulation on two cores. */
const DEADLINE_MS = 1_800_000
/** MiB with which the agent provisions. */
const MEMORY_MIB = 768
/** Machines of each room. MESH_ROOMS says another number, for a computer that has other things to do. */
const MACHINES = Number(process.env.MESH_ROOMS ?? 3)
const MASTER = `/ip4/${BOSS}/tcp/7433`
/**
 * What the master may send to all: one copy of the model in two minutes. Six emulated machines on two cores do about a hundredth of what real ones do, so
 * this is a cable of 100 Mbit/s to them. A master without a limit is done before they can help each other, and has then sent 3.3 copies.
 */
const MASTER_RATE = '1Mbit'
/** The master may send each block about once, whatever the number of machines. On a busy computer the machines are slower, and it sends more. */
const MOST_SENT = 2

interface Parts {
  readonly kernel: KernelFiles
  readonly lab: Lab
}

/** A machine that was switched on. */
interface SwitchedOn {
  readonly guest: VirtualMachine
  readonly disk: string
}

/**
 * Two rooms of bare machines with a BIOS, and a router between them, are switched on at once, and start by network: in the first room from the
 * master, in the second one from the machine of an operator. When all of them wait, all are approved. All come up, their disks are the image, and the master has
 * sent each block about once.
 */
export async function roomsScenario(parts: Parts, random: Random): Promise<string> {
  const { lab } = parts
  const rooms = await TwoRooms.open(lab)
  try {
    const image = lab.path('model.img')
    await makeSystem(image, lab.dir, random)
    const place = ['--listen', MASTER, '--max-upload', MASTER_RATE]
    await rooms.mesh(1, 'boss', 'master', 'seed', image, '--image', 'root', ...place).event('listening')
    await prepareSite(parts, rooms)
    const begun = performance.now()
    const machines: SwitchedOn[] = []
    for (const room of ROOMS)
      for (let machine = 1; machine <= MACHINES; machine++) machines.push(await switchOn(lab, rooms, room, machine))
    const [first] = machines
    await waitFor(lab, machines.length)
    await first!.guest.shown('This computer asks to be let in', DEADLINE_MS)
    await keepPicture(first!.guest, 'waiting')
    await lab.ok('master', ['approve', '--all', '--group', 'rooms'])
    const ups = machines.map(({ guest }) => guest.event('up', DEADLINE_MS))
    // The second time it has a bar.
    const shown = first!.guest.shown('Putting back what was changed', DEADLINE_MS, 2)
    await Promise.all([...ups, shown.then(() => keepPicture(first!.guest, 'provisioning'))])
    const minutes = ((performance.now() - begun) / 60_000).toFixed(1)
    await Promise.all(machines.map(({ guest }) => guest.ended()))
    for (const { disk } of machines) assert.equal(await changed(disk, image, lab), 0, `${disk} is the image`)
    const fetched = (await Promise.all(ups)).map((up) => fetchedBy(up))
    return `${machines.length} machines in two rooms up after ${minutes} min; ${await figures(lab, fetched)}`
  } finally {
    VirtualMachine.killAll()
    await rooms.close()
  }
}

/** What the master has sent, by its own count, as a multiple of what one machine needs. */
async function figures(lab: Lab, fetched: readonly number[]): Promise<string> {
  const { serving } = await lab.ok('master', ['status'])
  const { bytes } = serving as { bytes: number }
  const all = fetched.reduce((sum, some) => sum + some, 0)
  const needed = Math.max(...fetched) * BLOCK_BYTES
  const factor = (bytes / needed).toFixed(2)
  const told = `${all} blocks fetched; the master sent ${(bytes / MIB).toFixed(1)} MiB, ${factor} times the ${(needed / MIB).toFixed(1)} MiB that one machine needs`
  console.log(`    ${told}`)
  assert.ok(bytes < MOST_SENT * needed, told)
  return told
}

/** A layout, an agent that knows the master behind a router, and who serves it in each room. */
async function prepareSite({ kernel, lab }: Parts, rooms: TwoRooms): Promise<void> {
  const partition = '[[partition]]\nimage = "root"\ntype = "root"\nsize = "48M"\ngrow = true\n'
  await writeFile(lab.path('layout.toml'), `esp = "${ESP_MIB}M"\nstate = "${STATE_MIB}M"\n${partition}`)
  await lab.ok('master', ['layout', 'set', lab.path('layout.toml')])
  const config = lab.path('agent.toml')
  await writeFile(config, `[boot]\nmaster = ["${MASTER}"]\n`)
  await makeAgent(lab, kernel, {
    machine: 'master',
    config,
    commandLine: 'console=tty0 console=ttyS0 no_timer_check quiet',
  })
  const { token } = await lab.ok('master', ['invite', '--role', 'operator'])
  const { code, stderr } = await rooms.mesh(2, 'desk', 'desk', 'join', String(token), '--name', 'desk').exited
  assert.equal(code, 0, stderr)
  for (const [room, computer, machine] of [
    [1, 'boss', 'master'],
    [2, 'desk', 'desk'],
  ] as const)
    await rooms.mesh(room, computer, machine, 'boot', 'serve', lab.path('agent-of-master')).event('boot-serving')
}

/** Switches a machine with a bare disk on, which starts by network. The first one has a screen. */
async function switchOn(lab: Lab, rooms: TwoRooms, room: RoomNumber, machine: number): Promise<SwitchedOn> {
  const name = `room${room}-pc${machine}`
  const disk = lab.path(`${name}.img`)
  await using file = await open(disk, 'w')
  await file.truncate(DISK_BYTES)
  const guest = VirtualMachine.start({
    cpus: 1,
    memory: MEMORY_MIB,
    firmware: bios('n').options,
    tell: {},
    drives: [`file=${disk},format=raw`],
    network: await rooms.card(room, `pc${machine}`, `52:54:00:81:0${room}:${String(machine).padStart(2, '0')}`),
    through: rooms.through(room),
    ...(room === 1 && machine === 1 ? { front: lab.path('front') } : {}),
  })
  return { guest, disk }
}

/** Waits until so many machines ask to be let in. */
async function waitFor(lab: Lab, count: number): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS
  for (;;) {
    const { length } = (await lab.ok('master', ['machines'])).machines as unknown as unknown[]
    if (length === count) return
    if (Date.now() >= deadline) throw new Error(`${length} of ${count} machines ask to be let in`)
    await sleep(3000)
  }
}

function fetchedBy({ device, said }: { readonly [key: string]: unknown }): number {
  assert.equal(device, '/dev/mapper/lab')
  const fetched = /root release 1: \d+ blocks restored, ([1-9]\d*) fetched$/.exec(String(said))?.[1]
  assert.ok(fetched !== undefined, String(said))
  return Number(fetched)
}

/** How many pieces of the root partition are not those of the model. */
async function changed(disk: string, image: string, lab: Lab): Promise<number> {
  await copyRange(disk, ROOT_AT, lab.path('root.now'), ROOT_BYTES)
  return (await differing(image, lab.path('root.now'), ERA_BLOCK_BYTES)).count
}
