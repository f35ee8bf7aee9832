import { resolve } from 'node:path'
import { Command } from 'commander'
import { MeshError } from '../../../protocol/errors.ts'
import { DEFAULT_LEVEL } from '../../boot/limits.ts'
import type { FailurePolicy } from '../boot/run-agent.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { configOf } from '../config/apply-config.ts'
import { formatBytes, formatTable } from '../format.ts'
import { parseEraName, parseLanguage, parseLevel, parsePolicy, parseText } from '../parse.ts'
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
  const run = withCommonOptions(new Command('run'))
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
    .action(action(runRun))
  return boot.addCommand(build).addCommand(run)
}

interface RunOptions {
  onFailure: FailurePolicy
  lang: Language
  text: string
  era?: string
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
  const { bundleFolder, menuOf, siteOf, signingOf } = await import('../boot/build-facts.ts')
  const { VERSION } = await import('../version.ts')
  const signing = signingOf(options)
  const menu = await menuOf(options)
  const config = configOf(context.command)?.path
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
