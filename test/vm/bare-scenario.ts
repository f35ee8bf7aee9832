import assert from 'node:assert/strict'
import { copyFile, open, readFile, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { ERA_BLOCK_BYTES } from '../../node/writelog/limits.ts'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { copyRange, makeAgent, makeSystem, ROOT_BYTES } from './boot-scenario.ts'
import { differing } from './compare-disks.ts'
import { VirtualMachine } from './virtual-machine.ts'

const MIB = 1024 ** 2
const [ESP_MIB, STATE_MIB] = [320, 64]
const DISK_BYTES = 448 * MIB
const ROOT_AT = (1 + ESP_MIB + STATE_MIB) * MIB
/** Firmware, drivers, a network and libp2p under emulation, on a machine that does other things. */
const DEADLINE_MS = 600_000
const UPDATE_TRIES = 4
const OVMF = '/usr/share/OVMF'

interface Room {
  readonly kernel: KernelFiles
  readonly lab: Lab
}

/** What the scenario begins with: a master that publishes a system, an agent and a layout; and a machine with a bare disk. */
async function bareRoom({ kernel, lab }: Room, random: Random) {
  const image = lab.path('model.img')
  await makeSystem(image, lab.dir, random)
  await lab.serve('master', ['seed', image, '--image', 'root'])
  const port = /\d+$/.exec(lab.address('master')!)![0]
  // QEMU leads this address to the host’s loopback interface.
  await writeFile(lab.path('agent.toml'), `[boot]\nmaster = ["/ip4/10.0.2.2/tcp/${port}"]\n`)
  const config = lab.path('agent.toml')
  const agent = await makeAgent(lab, kernel, { machine: 'master', config, commandLine: 'console=ttyS0' })
  const path = (name: string): string => agent.files.find((file) => file.path.endsWith(name))!.path
  await lab.ok('master', ['seed', path('agent.efi'), '--image', 'agent'])
  await setLayout(lab)
  const disk = lab.path('disk.img')
  await using file = await open(disk, 'w')
  await file.truncate(DISK_BYTES)
  await copyFile(`${OVMF}/OVMF_VARS_4M.fd`, lab.path('vars.fd'))
  const firmware = [
    ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${OVMF}/OVMF_CODE_4M.fd`],
    ...['-drive', `if=pflash,format=raw,unit=1,file=${lab.path('vars.fd')}`],
  ]
  const common = { memory: 768, tell: { step: 'idle' }, drives: [`file=${disk},format=raw`], firmware }
  const network = ['-netdev', 'user,id=lan', '-device', 'virtio-net-pci,netdev=lan,romfile=']
  const initramfs = path('agent.img')
  const switchOn = (): VirtualMachine => VirtualMachine.start({ ...common, kernel, initramfs, network })
  return { image, disk, path, common, network, initramfs, switchOn }
}

/**
 * A machine with a bare disk starts the agent: it asks to be let in, is laid out and restored, gets the agent on its disk, and starts its
 * system. At the next power-on it starts from its disk by UEFI, without a network. Then an agent is published that is broken, and a good one.
 */
export async function bareScenario(room: Room, random: Random): Promise<string> {
  const { kernel, lab } = room
  const { image, disk, path, common, network, initramfs, switchOn } = await bareRoom(room, random)
  const bare = switchOn()
  const code = await waiting(lab)
  const screen = await bare.shown(`Code: ${code}`, DEADLINE_MS)
  assert.match(screen, /This computer asks to be let in/)
  await lab.ok('master', ['approve', '--code', code, '--as', 'pc1'])
  const first = await bare.event('up', DEADLINE_MS)
  await bare.ended()
  assert.equal(first.device, '/dev/mapper/lab')
  assert.equal(first.state, 'yes')
  assert.match(String(first.said), /root release 1: \d+ blocks restored, [1-9]\d* fetched$/)
  assert.equal(await changed(disk, image, lab), 0)

  const again = VirtualMachine.start(common)
  await again.shown('"lab-mesh agent A"', DEADLINE_MS)
  const second = await again.event('up', DEADLINE_MS)
  await again.ended()
  assert.equal(second.device, '/dev/mapper/lab')
  assert.match(String(second.said), /: 0 blocks restored, 0 fetched$/)
  assert.equal(await changed(disk, image, lab), 0)
  const told = `bare: up ${first.seconds} s after the kernel, ${first.said}; from its own disk by UEFI, without a network card: up after ${second.seconds} s`

  const start = async (slot: string, lan: readonly string[] = []): Promise<string> => {
    const guest = VirtualMachine.start({ ...common, network: lan })
    await guest.shown(`"lab-mesh agent ${slot}"`, DEADLINE_MS)
    const { said, agent } = await guest.event('up', DEADLINE_MS)
    await guest.ended()
    assert.equal(await changed(disk, image, lab), 0)
    if (lan.length > 0) assert.match(String(said), /: [1-9]\d* blocks restored, [1-9]\d* fetched$/)
    return String(agent)
  }
  let sessions = 0
  /**
   * Somebody publishes an agent. A restore that has to fetch hears of it, if it does not end before. What a session dirties again comes from
   * the stage, so each dirties something else.
   */
  const update = async (release: number, content: Uint8Array): Promise<void> => {
    await lab.stop('master')
    await writeFile(path('agent.efi'), content)
    await lab.ok('master', ['seed', path('agent.efi'), '--image', 'agent', '--once', '--force'])
    await lab.serve('master', ['up'])
    let told = ''
    for (let tries = 0; tries < UPDATE_TRIES && !told.includes(`release ${release} is tried`); tries++) {
      const session = VirtualMachine.start({
        ...common,
        tell: { step: 'elsewhere', at: sessions++ },
        kernel,
        initramfs,
      })
      await session.event('written', DEADLINE_MS)
      await session.kill()
      assert.ok((await changed(disk, image, lab)) > 0)
      told = await start('A', network)
      console.log(`    ${told}`)
    }
    assert.match(told, new RegExp(`release ${release} is tried at the next start$`))
  }
  const good = await readFile(path('agent.efi'))
  await update(2, random.bytes(good.byteLength))
  // The firmware cannot start what is no program, and goes on with what was there.
  const broken = VirtualMachine.start(common)
  await broken.shown('failed to load Boot', DEADLINE_MS)
  const { agent: failed } = await broken.event('up', DEADLINE_MS)
  assert.match(String(failed), /^the agent on the disk: release 1, slot a$/)
  await broken.ended()
  // Zeros behind the end would not change the root of its hash tree.
  await update(3, Buffer.concat([good, Buffer.alloc(512, 'x')]))
  assert.equal(await start('B'), 'the agent on the disk: release 3, slot b')
  assert.equal(await start('B'), 'the agent on the disk: release 3, slot b')
  return `${told}; an agent that does not start: the old one goes on; a new one: tried from the other slot, and kept`
}

async function setLayout(lab: Lab): Promise<void> {
  const partition = '[[partition]]\nimage = "root"\ntype = "root"\nsize = "48M"\ngrow = true\n'
  await writeFile(
    lab.path('layout.toml'),
    `esp = "${ESP_MIB}M"\nstate = "${STATE_MIB}M"\nagent = "agent"\n${partition}`,
  )
  await lab.ok('master', ['layout', 'set', lab.path('layout.toml')])
}

/** The code of the machine that waits. */
export async function waiting(lab: Lab): Promise<string> {
  const deadline = Date.now() + DEADLINE_MS
  while (Date.now() < deadline) {
    const [one] = (await lab.ok('master', ['machines'])).machines as unknown as { code: string }[]
    if (one !== undefined) return one.code
    await sleep(2000)
  }
  throw new Error('no machine asked to be let in')
}

/** How many blocks of the root partition are not those of the model. */
async function changed(disk: string, image: string, lab: Lab): Promise<number> {
  await copyRange(disk, ROOT_AT, lab.path('root.now'), ROOT_BYTES)
  return (await differing(image, lab.path('root.now'), ERA_BLOCK_BYTES)).count
}
