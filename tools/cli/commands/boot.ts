import { resolve } from 'node:path'
import { Command, Option } from 'commander'
import { MeshError } from '../../../protocol/errors.ts'
import { DEFAULT_LEVEL } from '../../boot/limits.ts'
import type { AddressRange } from '../../boot/serve/lab-network.ts'
import { DEFAULT_HTTP_PORT } from '../../boot/serve/limits.ts'
import type { FailurePolicy } from '../boot/run-agent.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { configOf } from '../config/apply-config.ts'
import { formatBytes, formatTable } from '../format.ts'
import {
  parseAddress,
  parseAddressRange,
  parseDuration,
  parseEraName,
  parseLanguage,
  parseLevel,
  parsePolicy,
  parsePort,
  parseSystem,
  parseText,
} from '../parse.ts'
import type { Language } from '../screen/catalogue.ts'

interface BuildOptions {
  out: string
  kernel?: string
  modules?: string
  firmware: string
  cmdline: string
  signKey?: string
  signCert?: string
  menuPassword?: string
  menuStart: boolean
  level: number
  iso: boolean
}

/** `mesh boot`: its commands, the parts of the agent that they call, and how the results are printed. */
export function command(): Command {
  const boot = new Command('boot').description('the agent that machines start from')
  const build = withCommonOptions(new Command('build'))
    .description('make the agent: kernel, initramfs, EFI program, image for CD and USB stick, iPXE script')
    .option('--out <dir>', 'folder for what is made', 'agent')
    .option('--kernel <file>', 'the kernel (default: the newest in /boot)')
    .option('--modules <dir>', 'folder of the kernel’s modules (default: lib/modules/VERSION beside its boot folder)')
    .option('--firmware <dir>', 'folder of firmware files for the drivers that name them', '/lib/firmware')
    .option('--cmdline <words>', 'what is added to the kernel’s command line', '')
    .option('--sign-key <file>', 'sign the EFI program for Secure Boot with this private key (PEM)')
    .option('--sign-cert <file>', 'certificate of that key (PEM)')
    .option(
      '--menu-password <file>',
      'the agent’s menu for technicians has the password in this file; - for the standard input',
    )
    .option('--menu-start', 'that menu may start the system although the disk was not restored', false)
    .option('--level <n>', 'how hard to compress, 1 to 19', parseLevel, DEFAULT_LEVEL)
    .option('--no-iso', 'do not make the image for CD and USB stick')
    .addHelpText(
      'after',
      '\nThe state directory names the site; the configuration file goes into the agent.\n\nExamples:\n  mesh boot build\n  mesh boot build --sign-key db.key --sign-cert db.crt --out /srv/agent',
    )
    .action(action(runBuild))
  return boot.addCommand(build).addCommand(serveCommand()).addCommand(runCommand())
}

function runCommand(): Command {
  return withCommonOptions(new Command('run'))
    .description('what the agent itself runs: restore, write log, start the system')
    .option(
      '--on-failure <policy>',
      'what is done if the disk cannot be restored: hold, retry, start',
      parsePolicy,
      'hold',
    )
    .option('--lang <language>', 'language of the screen: en, de, fr, zh', parseLanguage, 'en')
    .option('--text <text>', 'the school’s own text on the screen', parseText, '')
    .option('--era <name>', 'the kernel’s log is /dev/mapper/NAME (default: as it was set up, else lab)', parseEraName)
    .option('--boot-disk <disk>', 'the disk to lay out on a bare machine (default: the only one that is built in)')
    .option(
      '--master <multiaddr>',
      'where the master is, besides looking for it by multicast DNS; for bare machines (repeatable)',
      (text: string, before: string[] = []) => [...before, parseAddress(text)],
    )
    .option(
      '--entry <entry>',
      'of a system that is not Linux: path of its EFI program, or label of the firmware’s entry',
      parseText,
    )
    .option(
      '--second <dir>',
      'state directory of a second machine on this computer; the screen asks which system starts',
    )
    .option('--default-system <n>', 'which system starts if nobody chooses, from 1', parseSystem, 1)
    .addOption(
      new Option('--choice-wait <duration>', 'how long is waited for a choice')
        .argParser(parseDuration)
        .default(10_000, '10s'),
    )
    .action(action(runRun))
}

function serveCommand(): Command {
  return withCommonOptions(new Command('serve'))
    .description('let machines start from the agent by network (PXE, iPXE, UEFI HTTP boot), until stopped')
    .argument('[dir]', 'the folder that `mesh boot build` has made', 'agent')
    .option('--interface <card>', 'network card of the lab, or its address (default: the only one)', parseText)
    .option(
      '--dhcp <range>',
      'lend out addresses, such as 10.20.0.100-10.20.0.199, where no other DHCP server does',
      parseAddressRange,
    )
    .option('--port <n>', 'port of the web server', parsePort, DEFAULT_HTTP_PORT)
    .addHelpText(
      'after',
      '\nNeeds root, and the Debian packages dnsmasq-base and ipxe.\n\nExamples:\n  mesh boot serve /srv/agent\n  mesh boot serve /srv/agent --interface eth1 --dhcp 10.20.0.100-10.20.0.199',
    )
    .action(action(runServe))
}

interface ServeOptions {
  interface?: string
  dhcp?: AddressRange
  port: number
}

async function runServe(context: Context, options: ServeOptions, dir: string): Promise<void> {
  const { serveAgent } = await import('../../boot/serve/serve-agent.ts')
  const { servedSite } = await import('../boot/build-facts.ts')
  const { Underway } = await import('../boot/start-text.ts')
  const { output, signal, stateDir, agent } = context
  const underway = new Underway()
  await serveAgent({
    folder: resolve(dir),
    site: () => servedSite(resolve(stateDir), agent.listen ?? []),
    port: options.port,
    signal,
    report: (event) => {
      output.event(event)
      output.status(underway.after(event))
    },
    ...(options.interface === undefined ? {} : { interface: options.interface }),
    ...(options.dhcp === undefined ? {} : { range: options.dhcp }),
  })
  output.result({ event: 'stopped' }, 'Stopped.')
}

interface RunOptions {
  onFailure: FailurePolicy
  lang: Language
  text: string
  era?: string
  bootDisk?: string
  master?: readonly string[]
  entry?: string
  second?: string
  defaultSystem: number
  choiceWait: number
}

async function runRun(context: Context, { lang, ...options }: RunOptions): Promise<void> {
  // Elsewhere it would restore the disk, and wait for ever.
  if (process.env.MESH_BOOT !== 'agent')
    throw new MeshError('USAGE', '`mesh boot run` is for the agent, which `mesh boot build` makes')
  const { runAgent } = await import('../boot/run-agent.ts')
  await runAgent(context, { ...options, language: lang })
}

async function runBuild(context: Context, options: BuildOptions): Promise<void> {
  const { buildAgent, findKernel } = await import('../../boot/build-agent.ts')
  const { bundleFolder, fontOf, menuOf, siteOf, signingOf } = await import('../boot/build-facts.ts')
  const { VERSION } = await import('../version.ts')
  const signing = signingOf(options)
  const menu = await menuOf(options)
  const file = configOf(context.command)
  const [config, font] = [file?.path, await fontOf(file)]
  const built = await buildAgent({
    site: await siteOf(resolve(context.stateDir)),
    out: resolve(options.out),
    bundle: bundleFolder(),
    nodeFlags: process.execArgv,
    version: VERSION,
    kernel: await findKernel(absolute(options)),
    firmware: resolve(options.firmware),
    commandLine: options.cmdline,
    level: options.level,
    diskImage: options.iso,
    ...(config === undefined ? {} : { config: resolve(config) }),
    ...(signing === undefined ? {} : { signing }),
    ...(menu === undefined ? {} : { menu }),
    ...(font === undefined ? {} : { font }),
  })
  const rows = built.files.map(({ path, size, sha256 }) => [path, formatBytes(size), sha256])
  const first = `The agent of site ${built.site}, with Linux ${built.kernel}; its files take ${formatBytes(built.unpacked)} of memory.`
  context.output.result(built, `${first}\n${formatTable([['file', 'size', 'SHA-256'], ...rows])}`)
}

function absolute({ kernel, modules }: BuildOptions): { kernel?: string; modules?: string } {
  return {
    ...(kernel === undefined ? {} : { kernel: resolve(kernel) }),
    ...(modules === undefined ? {} : { modules: resolve(modules) }),
  }
}
