import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { chmod, copyFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildAgent, type KernelFiles } from '../../tools/boot/build-agent.ts'
import { siteOf } from '../../tools/cli/boot/build-facts.ts'
import type { Lab, MeshProcess } from '../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../tools/lab/node-flags.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { Lan } from '../support/lan.ts'
import { VirtualMachine } from './virtual-machine.ts'

const FIRMWARE = '/usr/share/OVMF'
/** Firmware, TFTP and HTTP, a kernel, and a program of 110 MB under emulation, on a machine that does other things. */
const START_DEADLINE_MS = 400_000
/** Firmware of a machine that is switched on for the first time. */
interface Firmware {
  readonly code: string
  readonly variables: string
  readonly more?: readonly string[]
}
/** Only UEFI HTTP boot of IPv4, without waiting for the other ways first. */
const ONLY_HTTP = ['IPv4PXESupport', 'IPv6PXESupport'].flatMap((name) => [
  ...['-fw_cfg', `name=opt/org.tianocore/${name},string=n`],
])
const PLAIN: Firmware = { code: 'OVMF_CODE_4M.fd', variables: 'OVMF_VARS_4M.fd' }
/** Secure Boot with a key that the package has as an example. */
const SECURE: Firmware = {
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
  const lan = new Lan(`mesh-vm-${process.pid}-`)
  const wanted = process.env.MESH_PXE?.split(',')
  const told: string[] = []
  let school: ChildProcess | undefined
  const onExit = (): void => {
    school?.kill('SIGKILL')
    lan.closeNow()
  }
  process.once('exit', onExit)
  try {
    await openRoom(lan)
    school = startSchool(lan)
    const beside = await serve(lan, lab, 'agent')
    const ways: [string, () => Promise<string>][] = [
      ['bios', () => start(lan, beside, 'BIOS', bios())],
      ['uefi', async () => start(lan, beside, 'UEFI', await uefi(lab, PLAIN))],
      ['http', async () => start(lan, beside, 'UEFI by HTTP', await uefi(lab, { ...PLAIN, more: ONLY_HTTP }))],
    ]
    for (const [name, way] of ways)
      if (wanted?.includes(name) !== false) told.push(`beside a DHCP server, ${await way()}`)
    await beside.stop()
    if (wanted?.includes('secure') !== false) {
      const signed = await serve(lan, lab, 'agent-signed')
      told.push(`Secure Boot, ${await start(lan, signed, 'UEFI', await uefi(lab, SECURE))}`)
      await signed.stop()
    }
    school.kill('SIGKILL')
    if (wanted?.includes('dhcp') !== false) {
      const alone = await serve(lan, lab, 'agent', '--dhcp', '10.77.0.100-10.77.0.120')
      told.push(`with --dhcp, ${await start(lan, alone, 'BIOS', bios())}`)
      told.push(`with --dhcp, ${await start(lan, alone, 'UEFI', await uefi(lab, PLAIN))}`)
      const outcome = await alone.stop('SIGINT')
      assert.deepEqual([outcome.code, outcome.result], [0, { event: 'stopped' }])
    }
    return told.join('; ')
  } finally {
    school?.kill('SIGKILL')
    await lan.close()
    process.off('exit', onExit)
  }
}

async function openRoom(lan: Lan): Promise<void> {
  await lan.open()
  for (const [name, address] of [
    ['boss', '10.77.0.1/24'],
    ['school', '10.77.0.2/24'],
  ] as const) {
    await lan.addMachine(name)
    await lan.cable(name, address)
  }
  await lan.ip('hub', 'tuntap', 'add', 'pc', 'mode', 'tap')
  await lan.ip('hub', 'link', 'set', 'dev', 'pc', 'master', 'br0', 'up')
}

function startSchool(lan: Lan): ChildProcess {
  const [program = '', ...rest] = [
    ...[...lan.through('school'), 'dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--port=0'],
    ...['--user=root', '--pid-file=', '--log-facility=/dev/null', '--leasefile-ro', '--no-ping'],
    '--dhcp-range=10.77.0.150,10.77.0.170',
  ]
  return spawn(program, rest, { stdio: 'ignore' })
}

async function serve(lan: Lan, lab: Lab, agent: string, ...more: string[]): Promise<MeshProcess> {
  const serving = lan.mesh('boss', 'boot', 'serve', lab.path(agent), '--state', lab.path('master'), ...more)
  await serving.event('boot-serving')
  return serving
}

/** Switches a machine on, and waits until the agent runs there and `mesh boot serve` has told so. */
async function start(
  lan: Lan,
  serving: MeshProcess,
  firmware: string,
  { options, rom }: { options: readonly string[]; rom: readonly string[] },
): Promise<string> {
  const at = performance.now()
  // A card of its own for each start, so that each machine is a new one.
  const mac = `52:54:00:77:00:${String(10 + serving.events.filter(({ step }) => step === 'loaded').length)}`
  const guest = VirtualMachine.start({
    ...{ firmware: options, drives: [], tell: {}, memory: 1024, through: lan.through('hub') },
    network: [
      ...['-netdev', 'tap,id=lan,ifname=pc,script=no,downscript=no'],
      ...['-device', ['virtio-net-pci', 'netdev=lan', `mac=${mac}`, ...rom].join(',')],
    ],
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
  const first = rom.length === 0 ? 'ipxe' : 'asks'
  assert.deepEqual([steps[0]?.step, loaded?.step, loaded?.firmware], [first, 'loaded', firmware], JSON.stringify(steps))
  return `${firmware}: the agent runs after ${((performance.now() - at) / 1000).toFixed(0)} s`
}

/** SeaBIOS with its screen on the serial console, and the card’s ROM, which is iPXE in QEMU. */
function bios(): { options: string[]; rom: string[] } {
  return { options: ['-machine', 'pc,graphics=off', '-boot', 'n'], rom: [] }
}

/** OVMF with its own driver of the card, and a copy of its variables. */
async function uefi(lab: Lab, { code, variables, more = [] }: Firmware): Promise<{ options: string[]; rom: string[] }> {
  const copy = lab.path('variables.fd')
  await copyFile(join(FIRMWARE, variables), copy)
  await chmod(copy, 0o600)
  const options = [
    ...['-machine', 'q35,smm=on', ...more],
    ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${join(FIRMWARE, code)}`],
    ...['-drive', `if=pflash,format=raw,unit=1,file=${copy}`],
  ]
  return { options, rom: ['romfile='] }
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
