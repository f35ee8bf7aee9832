import { execFile } from 'node:child_process'
import { access } from 'node:fs/promises'
import { promisify } from 'node:util'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { BUILD_EPOCH_SECONDS, BUILD_TOOL_DEADLINE_MS, BUILD_TOOL_OUTPUT_BYTES } from './limits.ts'

/** Debian packages of the programs that make the agent, are in it, or serve it. */
const PACKAGES: Readonly<Record<string, string>> = {
  busybox: 'busybox-static',
  dmsetup: 'dmsetup',
  era_invalidate: 'thin-provisioning-tools',
  losetup: 'mount',
  blockdev: 'util-linux',
  strip: 'binutils',
  objcopy: 'binutils',
  sbsign: 'sbsigntool',
  xorriso: 'xorriso',
  'grub-mkimage': 'grub-common',
  'mkfs.fat': 'dosfstools',
  'mkfs.vfat': 'dosfstools',
  mke2fs: 'e2fsprogs',
  efibootmgr: 'efibootmgr',
  mmd: 'mtools',
  mcopy: 'mtools',
  xz: 'xz-utils',
  zstd: 'zstd',
  dnsmasq: 'dnsmasq-base',
  setpriv: 'util-linux',
}

const execute = promisify(execFile)
const env = {
  ...process.env,
  LC_ALL: 'C',
  TZ: 'UTC',
  PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`,
  // What tools write as the time of the build.
  SOURCE_DATE_EPOCH: String(BUILD_EPOCH_SECONDS),
}

function missing(what: string, name: string): MeshError {
  return new MeshError('TOOL_MISSING', `${what} of the Debian package ${name} is missing`, {
    detail: { package: name },
  })
}

/**
 * Runs a program that makes a part of the agent, and returns what it printed. Errors: TOOL_MISSING with the Debian package, BOOT_BUILD_FAILED
 * with what the program said.
 */
export async function runBuildTool(name: string, args: readonly string[]): Promise<Buffer> {
  try {
    const options = {
      env,
      timeout: BUILD_TOOL_DEADLINE_MS,
      maxBuffer: BUILD_TOOL_OUTPUT_BYTES,
      encoding: 'buffer',
    } as const
    return (await execute(name, args, options)).stdout
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') throw missing(`the program ${name}`, PACKAGES[name] ?? name)
    const said = String((cause as { stderr?: Buffer }).stderr ?? '').trim()
    const text = `${name} ${args.join(' ')}: ${said === '' ? 'failed' : said.replaceAll(/\s*\n\s*/g, '; ')}`
    throw new MeshError('BOOT_BUILD_FAILED', text, { cause })
  }
}

/** Path of a program. Errors: TOOL_MISSING. */
export async function whichProgram(name: string): Promise<string> {
  const found = await execute('sh', ['-c', 'command -v "$0"', name], { env }).catch(() => undefined)
  if (found === undefined) throw missing(`the program ${name}`, PACKAGES[name] ?? name)
  return found.stdout.trim()
}

/** A file that a Debian package brings. Errors: TOOL_MISSING. */
export async function packagedFile(path: string, name: string): Promise<string> {
  await access(path).catch(() => {
    throw missing(`the file ${path}`, name)
  })
  return path
}
