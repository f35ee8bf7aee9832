import assert from 'node:assert/strict'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildAgent, type KernelFiles } from '../../tools/boot/build-agent.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../tools/lab/node-flags.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { VirtualMachine } from './virtual-machine.ts'

const [CODE, VARIABLES] = ['/usr/share/OVMF/OVMF_CODE_4M.secboot.fd', '/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd']
/** Key and certificate that Debian's package ovmf has enrolled in those variables, for tests; everybody knows the key's password. */
const [KEY, CERTIFICATE] = ['/usr/share/ovmf/PkKek-1-snakeoil.key', '/usr/share/ovmf/PkKek-1-snakeoil.pem']
/** Firmware that checks 60 MB, a kernel and Node under emulation, on a machine that does other things. */
const DEADLINE_MS = 600_000

/**
 * Firmware with Secure Boot on and a key of its own starts the agent that is signed with that key, as far as its first screen: the kernel is
 * locked down, and its drivers load. It refuses the agent that is not signed.
 */
export async function secureBootScenario({
  kernel,
  lab,
}: {
  readonly kernel: KernelFiles
  readonly lab: Lab
}): Promise<string> {
  const key = lab.path('db.key')
  await runTool('openssl', ['rsa', '-in', KEY, '-passin', 'pass:snakeoil', '-out', key])
  const refused = await switchOn(await makeStick(lab, kernel, 'unsigned'))
  const said = await refused.shown('Access Denied', DEADLINE_MS)
  assert.match(said, /failed to load .*Access Denied/)
  await refused.kill()
  assert.doesNotMatch(said, /This computer/)

  const started = await switchOn(await makeStick(lab, kernel, 'signed', { key, certificate: CERTIFICATE }))
  for (const text of [
    'secureboot: Secure boot enabled',
    'Kernel is locked down from EFI Secure Boot',
    // Of the drivers of the disk and of loop devices, which are modules.
    '[vda]',
    'loop: module loaded',
    'This computer is getting ready',
  ])
    await started.shown(text, DEADLINE_MS)
  await started.kill()
  return 'unsigned: Access Denied; signed: locked down, drivers loaded, first screen shown'
}

/** The image for a USB stick. */
async function makeStick(
  lab: Lab,
  kernel: KernelFiles,
  name: string,
  signing?: { readonly key: string; readonly certificate: string },
): Promise<string> {
  const { files } = await buildAgent({
    // Nothing is asked of the site.
    site: { name: 'lab', root: Buffer.from('{}'), rootVersion: 1 },
    out: lab.path(name),
    bundle: join(import.meta.dirname, '../../dist'),
    nodeFlags: NODE_FLAGS,
    version: 'test',
    kernel,
    firmware: '/nonexistent',
    commandLine: 'loglevel=7',
    ...(signing === undefined ? {} : { signing }),
    level: 3,
    diskImage: true,
  })
  return files.find(({ path }) => path.endsWith('agent.iso'))!.path
}

async function switchOn(stick: string): Promise<VirtualMachine> {
  const variables = `${stick}.variables`
  await copyFile(VARIABLES, variables)
  return VirtualMachine.start({
    firmware: [
      ...['-machine', 'q35,smm=on', '-global', 'driver=cfi.pflash01,property=secure,value=on'],
      ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${CODE}`],
      ...['-drive', `if=pflash,unit=1,format=raw,file=${variables}`],
    ],
    drives: [`file=${stick},format=raw`],
    tell: {},
    memory: 768,
  })
}
