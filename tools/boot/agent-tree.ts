import { existsSync } from 'node:fs'
import { mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import { createRequire, isBuiltin } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { readJson } from '../../protocol/document.ts'
import { MeshError } from '../../protocol/errors.ts'
import { anyText, type Check, object, optional } from '../../protocol/json-shape.ts'
import {
  DISKS_SCRIPT,
  DRIVERS_SCRIPT,
  initScript,
  LEASE_SCRIPT,
  NETWORK_SCRIPT,
  NETWORK_SCRIPT_TEXT,
} from './boot-scripts.ts'
import { runBuildTool, whichProgram } from './build-tool.ts'
import { FileTree } from './file-tree.ts'

/** Programs that busybox does not have, or not as well. era_invalidate and era_restore are names of pdata_tools. */
const PROGRAMS = ['dmsetup', 'losetup', 'blockdev'] as const
const ERA_NAMES = ['era_invalidate', 'era_restore', 'era_dump']

/** What the scripts and mesh call of busybox. modprobe stands where the kernel looks for it. */
const APPLETS = [
  ...['basename', 'cat', 'dirname', 'find', 'grep', 'ip', 'kill', 'ln', 'mkdir', 'mkfifo', 'mount', 'mv', 'poweroff'],
  ...[
    'printf',
    'reboot',
    'rm',
    'sh',
    'sleep',
    'switch_root',
    'sync',
    'tail',
    'tr',
    'udhcpc',
    'umount',
    'modprobe',
    'insmod',
    'arping',
  ],
]

/** A file system in memory that holds busybox, Node, mesh and the tools of the write log, and no drivers yet. */
export async function agentTree(options: {
  /** Folder of the bundle that `npm run build` makes. */
  readonly bundle: string
  /** Without the symbols of its debugger Node is smaller by 18 MB. */
  readonly stripped: boolean
}): Promise<FileTree> {
  const tree = new FileTree()
  for (const folder of ['/proc', '/sys', '/dev', '/run', '/tmp', '/root', '/mnt']) tree.folder(folder)
  await addBusybox(tree)
  for (const name of PROGRAMS) await tree.program(`/usr/sbin/${name}`, await whichProgram(name))
  await tree.program('/usr/sbin/pdata_tools', await realpath(await whichProgram('era_invalidate')))
  for (const name of ERA_NAMES) tree.link(`/usr/sbin/${name}`, 'pdata_tools')
  await tree.program('/usr/bin/node', process.execPath, options.stripped ? await strippedNode() : undefined)
  await addMesh(tree, options.bundle)
  return tree
}

/** Adds what starts a machine: `/init` and what it calls. */
export function addBootScripts(tree: FileTree, nodeFlags: readonly string[]): void {
  tree.write('/init', initScript(nodeFlags), 0o755)
  tree.write('/lib/mesh/drivers', DRIVERS_SCRIPT)
  tree.write('/lib/mesh/disks', DISKS_SCRIPT, 0o755)
  tree.write(NETWORK_SCRIPT, NETWORK_SCRIPT_TEXT, 0o755)
  tree.write('/lib/mesh/lease', LEASE_SCRIPT, 0o755)
}

async function addBusybox(tree: FileTree): Promise<void> {
  const busybox = await whichProgram('busybox')
  const has = new Set(String(await runBuildTool(busybox, ['--list'])).split('\n'))
  const lacking = APPLETS.filter((name) => !has.has(name))
  if (lacking.length > 0)
    throw new MeshError(
      'TOOL_MISSING',
      `${busybox} cannot do ${lacking.join(', ')}; that of the Debian package busybox-static can`,
    )
  await tree.program('/bin/busybox', busybox)
  for (const name of APPLETS) tree.link(name === 'modprobe' ? '/sbin/modprobe' : `/bin/${name}`, '/bin/busybox')
}

async function strippedNode(): Promise<Buffer> {
  const work = await mkdtemp(join(tmpdir(), 'mesh-strip-'))
  try {
    await runBuildTool('strip', ['-o', join(work, 'node'), process.execPath])
    return await readFile(join(work, 'node'))
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** The bundle, the package that it leaves out, and code that V8 has compiled before. */
async function addMesh(tree: FileTree, bundle: string): Promise<void> {
  if (!existsSync(join(bundle, 'mesh.js')))
    throw new MeshError('USAGE', `${bundle} holds no bundle of mesh; make it with \`npm run build\``)
  await tree.copyFolder('/mesh', bundle, (path) => !path.includes('/'))
  tree.write('/mesh/package.json', '{"type":"module"}\n')
  await addPackage(tree, 'classic-level', bundle, new Set())
}

interface PackageFacts {
  readonly dependencies?: Readonly<Record<string, string>>
}

const isObject = object({ name: optional(anyText(1024)) })
const isPackage: Check<PackageFacts> = (value): value is PackageFacts => isObject(value)

/** A package and all that it needs: code, and of native addons the one for this kind of machine. */
async function addPackage(tree: FileTree, name: string, from: string, done: Set<string>): Promise<void> {
  // What has the name of a part of Node stands for that part in browsers.
  if (done.has(name) || isBuiltin(name)) return
  done.add(name)
  const folder = packageFolder(name, from)
  const addon = `prebuilds/linux-${process.arch}/`
  const isWanted = (path: string): boolean =>
    path.startsWith('prebuilds/')
      ? path.startsWith(addon) && !path.includes('musl')
      : /\.(c?js|json)$/.test(path) && !/^(deps|test|benchmark|node_modules)\//.test(path)
  await tree.copyFolder(`/mesh/node_modules/${name}`, folder, isWanted)
  const { dependencies = {} } = readJson('package.json', isPackage, await readFile(join(folder, 'package.json')))
  for (const needed of Object.keys(dependencies)) await addPackage(tree, needed, folder, done)
}

/** The folder of an installed package; not all of them let their package.json be asked for. */
function packageFolder(name: string, from: string): string {
  const places = createRequire(join(from, 'x.js')).resolve.paths(name) ?? []
  const found = places.map((place) => join(place, name)).find((place) => existsSync(join(place, 'package.json')))
  if (found === undefined)
    throw new MeshError('USAGE', `the package ${name}, which mesh needs, is not installed beside ${dirname(from)}`)
  return found
}
