import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import type { Lab } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { BareMachine, type BareParts, DEADLINE_MS, HOLDERS, waiting } from './bare-machine.ts'

/** What the old agent says of a new one after its first try. */
const TRIED_AGAIN = /release 1, slot a; release 2 is tried at the next start$/

/** The media of which each is a scenario. */
export const MEDIA = ['pxe-bios', 'pxe-uefi', 'iso', 'usb'] as const

/**
 * A machine with a bare disk is switched on with one of the media: it starts the agent, asks to be let in, is laid out, is restored from two machines of
 * the room, gets the agent on its disk, and starts its system. At the next power-on it starts from its disk, without a network card. Started by
 * network, it goes on: agents are published that do not start, and that start.
 */
export async function bareScenario(
  parts: BareParts & { readonly full: boolean },
  random: Random,
  medium: (typeof MEDIA)[number],
): Promise<string> {
  const machine = await BareMachine.open(parts, random, medium)
  try {
    const isByNetwork = medium.startsWith('pxe')
    const told = [
      await (isByNetwork ? machine.serving(() => provision(machine, parts.lab)) : provision(machine, parts.lab)),
    ]
    const { said, seconds } = await machine.start('a')
    assert.match(String(said), /: 0 blocks restored, 0 fetched$/)
    told.push(`from its own disk, without a network card: up after ${seconds} s`)
    const peers = await machine.peersOfReceipts()
    console.log(`    ${JSON.stringify(peers)}`)
    for (const holder of HOLDERS) assert.ok((peers[holder] ?? 0) > 0, `nothing came from ${holder}`)
    told.push(`blocks from ${JSON.stringify(peers)}`)
    if (isByNetwork && parts.full) told.push(await takeAgents(machine))
    return told.join('; ')
  } finally {
    await machine.close()
  }
}

/** From the bare disk to the system. Nobody presses a key. */
async function provision(machine: BareMachine, lab: Lab): Promise<string> {
  const guest = await machine.switchOnBare()
  const code = await waiting(lab)
  assert.match(await guest.shown(`Code: ${code}`, DEADLINE_MS), /This computer asks to be let in/)
  await lab.ok('master', ['approve', '--code', code, '--as', 'pc1'])
  const up = await machine.up(guest)
  assert.match(String(up.said), /root release 1: \d+ blocks restored, [1-9]\d* fetched$/)
  return `bare: up ${up.seconds} s after the kernel, ${up.said}`
}

/** An agent that does not start, and one that does. */
async function takeAgents(machine: BareMachine): Promise<string> {
  const good = await readFile(machine.agentFile('agent.efi'))
  const broken = machine.isBios ? withoutInitramfs(good) : withoutMachine(good)
  await machine.update(broken, ({ agent }) => / 2 is tried at the next start$/.test(String(agent)))
  const guest = await machine.fromDisk(false)
  if (machine.isBios) {
    // Its kernel stands still, until somebody switches the machine off, at each try.
    await guest.shown('Unable to mount root fs', DEADLINE_MS)
    await guest.kill()
    assert.match(String((await machine.start('a')).agent), TRIED_AGAIN)
    const again = await machine.fromDisk(false)
    await again.shown('Unable to mount root fs', DEADLINE_MS)
    await again.kill()
    assert.equal((await machine.start('a')).agent, 'the agent on the disk: release 1, slot a')
  } else {
    // The firmware cannot start what is made for no computer, and goes on with what was there.
    await guest.shown('failed to load Boot', DEADLINE_MS)
    assert.match(String((await machine.up(guest)).agent), TRIED_AGAIN)
    const again = await machine.fromDisk(false)
    await again.shown('failed to load Boot', DEADLINE_MS)
    assert.equal((await machine.up(again)).agent, 'the agent on the disk: release 1, slot a')
  }
  // Zeros behind the end would not change the root of its hash tree.
  await machine.update(Buffer.concat([good, Buffer.alloc(512, 'x')]), ({ agent }) =>
    / 3 is tried at the next start$/.test(String(agent)),
  )
  for (const _ of [1, 2]) assert.equal((await machine.start('b')).agent, 'the agent on the disk: release 3, slot b')
  return 'an agent that does not start: the old one goes on; a new agent: tried from the other slot, and kept'
}

/** A program that no computer is made for, by its header. */
function withoutMachine(efi: Buffer): Buffer {
  const broken = Buffer.from(efi)
  broken.writeUInt16LE(0x1c0, efi.readUInt32LE(0x3c) + 4)
  return broken
}

/** An agent whose kernel finds nothing to start. */
function withoutInitramfs(efi: Buffer): Buffer {
  const broken = Buffer.from(efi)
  const entry = efi.indexOf('.initrd\0', 0, 'latin1')
  const [size, at] = [efi.readUInt32LE(entry + 8), efi.readUInt32LE(entry + 20)]
  return broken.fill(0, at, at + size)
}
