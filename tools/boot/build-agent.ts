/**
 * The folder tools/boot makes the agent: what a machine starts from, before its own system.
 * - `build-agent` is `mesh boot build`. `agent-tree` says which files the agent holds, `kernel-modules` which drivers,
 *   `boot-scripts` what runs in it.
 * - `file-tree` is a file system in memory, and the archive that the kernel unpacks.
 * - `console-font` makes a font of the kernel's console, which has no Chinese characters; `console-glyphs` writes with it.
 * - `efi-image` makes one EFI program of it, `disk-image` an image for CD and USB stick.
 * - `build-tool` runs the programs that this needs, and knows their Debian packages.
 * - `agent-facts` is what it leaves for `serve`, which lets machines start from it by network.
 */

import { access, copyFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { makePath } from '../../node/state/make-path.ts'
import { digestOf, toHex } from '../../protocol/digest.ts'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { type AgentFacts, FACTS_FILE } from './agent-facts.ts'
import { addBootProgram, agentTree } from './agent-tree.ts'
import { AGENT_CONFIG, MENU_FILE } from './boot-scripts.ts'
import { runBuildTool } from './build-tool.ts'
import type { ConsoleFont } from './console-font.ts'
import { CONSOLE_FONT, WIDE_CHARACTERS } from './console-glyphs.ts'
import { makeDiskImage } from './disk-image.ts'
import { makeEfiImage } from './efi-image.ts'
import type { FileTree } from './file-tree.ts'
import { AGENT_MODULES, addModules } from './kernel-modules.ts'

/** What the agent knows its site by. */
export interface AgentSite {
  readonly name: string
  /** The site's first root metadata, as it was signed; its SHA-256 is the site's id. */
  readonly root: Uint8Array
  /** Version of its newest root metadata. */
  readonly rootVersion: number
}

/** Options of `mesh boot build`. Paths are absolute. */
interface BuildAgentOptions {
  readonly site: AgentSite
  /** Folder for what is made; files of an earlier build are replaced. */
  readonly out: string
  readonly bundle: string
  readonly nodeFlags: readonly string[]
  readonly version: string
  readonly kernel: KernelFiles
  /** Where firmware files are that drivers name. */
  readonly firmware: string
  /** Configuration file of the machines. */
  readonly config?: string
  /** The facts of the local menu, if there is to be one. */
  readonly menu?: string
  /** Font of the kernel’s console, if its own one does not do. */
  readonly font?: ConsoleFont
  /** What is added to the kernel’s command line. */
  readonly commandLine: string
  readonly signing?: { readonly key: string; readonly certificate: string }
  /** zstd's level, 1 to 19. */
  readonly level: number
  /** Whether the image for CD and USB stick is made. */
  readonly diskImage: boolean
}

/** A kernel and the folder of its modules, `…/lib/modules/VERSION`. */
export interface KernelFiles {
  readonly image: string
  readonly modules: string
}

/** Result of `mesh boot build`. */
export interface BuiltAgent {
  readonly event: 'built'
  readonly site: string
  readonly siteId: string
  readonly kernel: string
  /** Bytes of the root file system before it is packed. */
  readonly unpacked: number
  readonly files: readonly { readonly path: string; readonly size: number; readonly sha256: string }[]
}

/** The kernel shows nothing but what is serious; the last console named is the one that /dev/console leads to. */
const COMMAND_LINE = 'console=ttyS0,115200 console=tty0 quiet loglevel=3'

/** Makes the agent. Errors: TOOL_MISSING, BOOT_BUILD_FAILED, USAGE, those of the disk that it is written to. */
export async function buildAgent(options: BuildAgentOptions): Promise<BuiltAgent> {
  const { site, out, kernel } = options
  await makePath(out).catch((cause: unknown) => {
    throw new MeshError('USAGE', `--out ${out} cannot be made (${errnoOf(cause)})`, { cause })
  })
  const work = await mkdtemp(join(tmpdir(), 'mesh-boot-'))
  try {
    const tree = await agentTree({ stripped: true })
    await addBootProgram(tree, options.bundle, options.nodeFlags)
    await addModules(tree, {
      folder: kernel.modules,
      names: Object.values(AGENT_MODULES).flat(),
      firmware: options.firmware,
    })
    await addLabFiles(tree, options)
    const packed = tree.pack()
    const parts = {
      kernel: join(out, 'vmlinuz'),
      initramfs: join(out, 'agent.img'),
      commandLine: `${COMMAND_LINE} ${options.commandLine}`.trim(),
      release: `ID=mesh-agent\nPRETTY_NAME="mesh agent ${options.version}"\nVERSION_ID="${options.version}"\n`,
    }
    await copyFile(kernel.image, parts.kernel)
    await compress(packed, parts.initramfs, { level: options.level, work })
    const efi = join(out, 'agent.efi')
    await makeEfiImage(efi, parts, { work, signing: options.signing })
    const script = join(out, 'boot.ipxe')
    await writeFile(script, ipxeScript(parts.commandLine))
    const iso = join(out, 'agent.iso')
    if (options.diskImage) await makeDiskImage(iso, { ...parts, efi }, work)
    const made = [parts.kernel, parts.initramfs, efi, script, ...(options.diskImage ? [iso] : [])]
    const built: BuiltAgent = {
      event: 'built',
      site: site.name,
      siteId: toHex(digestOf(site.root)),
      kernel: basename(kernel.modules),
      unpacked: packed.byteLength,
      files: await Promise.all(made.map(describe)),
    }
    // Last: whoever serves the folder takes up a new agent when this file is new.
    await writeFile(join(out, FACTS_FILE), `${JSON.stringify(factsOf(built, options), undefined, 2)}\n`)
    return built
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** Adds what is this lab's own: its site, configuration, menu and font. */
async function addLabFiles(tree: FileTree, { site, config, menu, font }: BuildAgentOptions): Promise<void> {
  tree.write(`${AGENT_CONFIG}/site`, `${site.name}\n`)
  tree.write(`${AGENT_CONFIG}/1.root.json`, Buffer.from(site.root))
  if (config !== undefined) await tree.copy(`${AGENT_CONFIG}/mesh.toml`, config)
  if (menu !== undefined) tree.write(MENU_FILE, menu, 0o600)
  if (font === undefined) return
  tree.write(CONSOLE_FONT, font.file)
  tree.write(WIDE_CHARACTERS, font.wide)
}

function factsOf({ siteId, kernel, files }: BuiltAgent, { site, version, signing }: BuildAgentOptions): AgentFacts {
  return {
    site: site.name,
    siteId,
    rootVersion: site.rootVersion,
    version,
    kernel,
    signed: signing !== undefined,
    files: files.map(({ path, size, sha256 }) => ({ name: basename(path), size, sha256 })),
  }
}

/** How many threads zstd uses does not change what comes out, as long as it is not told to use none. */
async function compress(
  content: Buffer,
  target: string,
  { level, work }: { level: number; work: string },
): Promise<void> {
  const file = join(work, 'agent.cpio')
  await writeFile(file, content)
  await runBuildTool('zstd', ['-q', '-f', `-${level}`, '-T0', '-o', target, file])
}

/** For iPXE, which fetches both files from where it has fetched this script. */
function ipxeScript(commandLine: string): string {
  return `#!ipxe\nkernel vmlinuz initrd=agent.img ${commandLine}\ninitrd agent.img\nboot\n`
}

async function describe(path: string): Promise<BuiltAgent['files'][number]> {
  const { size } = await stat(path)
  return { path, size, sha256: toHex(digestOf(await readFile(path))) }
}

/**
 * The kernel that is named, or the newest one of this machine with its modules. Errors: USAGE, TOOL_MISSING if no kernel is installed.
 */
export async function findKernel(given: { kernel?: string; modules?: string }): Promise<KernelFiles> {
  const image = given.kernel ?? (await newestKernel())
  const version = basename(image).replace(/^vmlinuz-/, '')
  const modules = given.modules ?? join(dirname(image), '../lib/modules', version)
  for (const [option, path] of [
    ['--kernel', image],
    ['--modules', modules],
  ] as const)
    await access(path).catch(() => {
      throw new MeshError('USAGE', `${path} does not exist; give ${option}`)
    })
  return { image, modules }
}

async function newestKernel(): Promise<string> {
  const names = (await readdir('/boot').catch(() => [])).filter((name) => name.startsWith('vmlinuz-'))
  const newest = names.toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1)
  if (newest === undefined)
    throw new MeshError(
      'TOOL_MISSING',
      'no kernel is installed in /boot: install the Debian package linux-image-amd64, or give --kernel and --modules',
    )
  return join('/boot', newest)
}
