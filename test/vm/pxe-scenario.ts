import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildAgent, type KernelFiles } from '../../tools/boot/build-agent.ts'
import { siteOf } from '../../tools/cli/boot/build-facts.ts'
import type { Lab, MeshProcess } from '../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../tools/lab/node-flags.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { bios, type FirmwareOptions, PLAIN_UEFI, type UefiFirmware, uefi } from './firmware.ts'
import { MachineRoom } from './machine-room.ts'
import { VirtualMachine } from './virtual-machine.ts'

/** Firmware, TFTP and HTTP, a kernel, and a program of 110 MB under emulation, on a machine that does other things. */
const START_DEADLINE_MS = 400_000
/** Only UEFI HTTP boot of IPv4, without waiting for the other ways first. */
const ONLY_HTTP = ['IPv4PXESupport', 'IPv6PXESupport'].flatMap((name) => [
  ...['-fw_cfg', `name=opt/org.tianocore/${name},string=n`],
])
/** Secure Boot with a key that the package has as an example. */
const SECURE: UefiFirmware = {
  code: 'OVMF_CODE_4M.secboot.fd',
  variables: 'OVMF_VARS_4M.snakeoil.fd',
  more: ['-global', 'driver=cfi.pflash01,property=secure,value=on'],
}

/**
 * Machines with nothing on their disks start from the agent by network: firmware of BIOS and of UEFI, beside a DHCP server and without one, by PXE and by HTTP, with
 * Secure Boot. MESH_PXE names some of the ways only.
 */
export async function pxeScenario(
  { kernel, lab }: { readonly kernel: KernelFiles; readonly lab: Lab },
  random: Random,
): Promise<string> {
  const image = lab.path('model.img')
  await writeFile(image, random.bytes(1024 ** 2))
  await lab.serve('master', ['seed', image])
  await lab.stop('master')
  for (const signed of [false, true]) await makeAgent(lab, kernel, signed)
  const wanted = process.env.MESH_PXE?.split(',')
  const told: string[] = []
  const room = await MachineRoom.open(lab)
  try {
    const beside = await room.serve('agent')
    const ways: [string, () => Promise<string>][] = [
      ['bios', () => start(room, beside, 'BIOS', bios('n'))],
      ['uefi', async () => start(room, beside, 'UEFI', await uefi(lab, PLAIN_UEFI))],
      ['http', async () => start(room, beside, 'UEFI by HTTP', await uefi(lab, { ...PLAIN_UEFI, more: ONLY_HTTP }))],
    ]
    for (const [name, way] of ways)
      if (wanted?.includes(name) !== false) told.push(`beside a DHCP server, ${await way()}`)
    await beside.stop()
    if (wanted?.includes('secure') !== false) {
      const signed = await room.serve('agent-signed')
      told.push(`Secure Boot, ${await start(room, signed, 'UEFI', await uefi(lab, SECURE))}`)
      await signed.stop()
    }
    room.closeSchool()
    if (wanted?.includes('dhcp') !== false) {
      const alone = await room.serve('agent', '--dhcp', '10.77.0.100-10.77.0.120')
      told.push(`with --dhcp, ${await start(room, alone, 'BIOS', bios('n'))}`)
      told.push(`with --dhcp, ${await start(room, alone, 'UEFI', await uefi(lab, PLAIN_UEFI))}`)
      const outcome = await alone.stop('SIGINT')
      assert.deepEqual([outcome.code, outcome.result], [0, { event: 'stopped' }])
    }
    return told.join('; ')
  } finally {
    await room.close()
  }
}

/** Switches a machine on, and waits until the agent runs there and `mesh boot serve` has told so. */
async function start(
  room: MachineRoom,
  serving: MeshProcess,
  firmware: string,
  { options, card }: FirmwareOptions,
): Promise<string> {
  const at = performance.now()
  // A card of its own for each start, so that each machine is a new one.
  const mac = `52:54:00:77:00:${String(10 + serving.events.filter(({ step }) => step === 'loaded').length)}`
  const guest = VirtualMachine.start({
    ...{ firmware: options, drives: [], tell: {}, memory: 1024, through: room.through },
    network: room.card(`mac=${mac}`, ...card),
  })
  try {
    await guest.shown('mesh: the agent runs', START_DEADLINE_MS)
  } finally {
    await guest.kill()
    if (process.env.MESH_VM_DEBUG !== undefined)
      for (const event of serving.events) console.log(`    > ${JSON.stringify(event)}`)
  }
  const steps = serving.events.filter((event) => event.event === 'boot-machine' && event.mac === mac)
  const loaded = steps.at(-1)
  const first = card.length === 0 ? 'ipxe' : 'asks'
  assert.deepEqual([steps[0]?.step, loaded?.step, loaded?.firmware], [first, 'loaded', firmware], JSON.stringify(steps))
  return `${firmware}: the agent runs after ${((performance.now() - at) / 1000).toFixed(0)} s`
}

async function makeAgent(lab: Lab, kernel: KernelFiles, signed: boolean): Promise<void> {
  const [key, certificate] = [lab.path('key.pem'), '/usr/share/ovmf/PkKek-1-snakeoil.pem']
  await runTool('openssl', ['rsa', '-in', certificate.replace('.pem', '.key'), '-passin', 'pass:snakeoil', '-out', key])
  await buildAgent({
    site: await siteOf(lab.path('master')),
    out: lab.path(signed ? 'agent-signed' : 'agent'),
    bundle: join(import.meta.dirname, '../../dist'),
    nodeFlags: NODE_FLAGS,
    version: 'test',
    kernel,
    firmware: '/nonexistent',
    // So that the console shows what the agent says to the kernel’s log. Its last console is the serial one.
    commandLine: 'loglevel=7 console=ttyS0',
    level: 3,
    diskImage: false,
    ...(signed ? { signing: { key, certificate } } : {}),
  })
}
