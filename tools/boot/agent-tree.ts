import { existsSync } from 'node:fs'
import { mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MeshError } from '../../protocol/errors.ts'
import { makeSnapshot } from './agent-snapshot.ts'
import { makeBiosLoader } from './bios-loader.ts'
import {
  AGENT_SNAPSHOT,
  BIOS_LOADER,
  DISKS_PROGRAM,
  DISKS_SCRIPT,
  DRIVERS_SCRIPT,
  initScript,
  LEASE_SCRIPT,
  NETWORK_SCRIPT,
  NETWORK_SCRIPT_TEXT,
} from './boot-scripts.ts'
import { packagedFile, runBuildTool, whichProgram } from './build-tool.ts'
import { FileTree } from './file-tree.ts'

/** The native addon of LevelDB. */
const ADDON = 'classic-level.node'

/** Programs that busybox does not have, or not as well. era_invalidate and era_restore are names of pdata_tools. */
const PROGRAMS = ['dmsetup', 'losetup', 'blockdev', 'mke2fs', 'e2fsck', 'mkfs.vfat', 'efibootmgr'] as const
const ERA_NAMES = ['era_invalidate', 'era_restore', 'era_dump']

/** What the scripts and mesh call of busybox. modprobe stands where the kernel looks for it. */
const APPLETS = [
  ...['basename', 'cat', 'dirname', 'find', 'grep', 'ip', 'kill', 'ln', 'mkdir', 'mkfifo', 'mount', 'mv', 'poweroff'],
  ...[
    'printf',
    'reboot',
    'rm',
    'sh',
    'sha256sum',
    'sleep',
    'switch_root',
    'sync',
    'tr',
    'udhcpc',
    'umount',
    'modprobe',
    'od',
    'insmod',
    'arping',
    'loadfont',
  ],
]

/**
 * A file system in memory that holds busybox, Node and the tools of the write log, no drivers yet, and nothing that runs. `stripped`: without
 * the symbols of its debugger Node is smaller by 18 MB.
 */
export async function agentTree({ stripped }: { readonly stripped: boolean }): Promise<FileTree> {
  const tree = new FileTree()
  for (const folder of ['/proc', '/sys', '/dev', '/run', '/tmp', '/root', '/mnt']) tree.folder(folder)
  await addBusybox(tree)
  for (const name of PROGRAMS) await tree.program(`/usr/sbin/${name}`, await whichProgram(name))
  // What mke2fs makes by default is said there.
  await tree.copy('/etc/mke2fs.conf', await packagedFile('/etc/mke2fs.conf', 'e2fsprogs'))
  await tree.program('/usr/sbin/pdata_tools', await realpath(await whichProgram('era_invalidate')))
  for (const name of ERA_NAMES) tree.link(`/usr/sbin/${name}`, 'pdata_tools')
  await tree.program('/usr/bin/node', process.execPath, stripped ? await strippedNode() : undefined)
  return tree
}

/** Adds what starts a machine: `/init` and what it calls. `bundle`: the folder that `npm run build` makes. Errors: USAGE. */
export async function addBootProgram(tree: FileTree, bundle: string, nodeFlags: readonly string[]): Promise<void> {
  await addProgram(tree, bundle, nodeFlags)
  tree.write('/init', initScript(nodeFlags), 0o755)
  tree.write('/lib/mesh/drivers', DRIVERS_SCRIPT)
  tree.write(DISKS_PROGRAM, DISKS_SCRIPT, 0o755)
  tree.write(NETWORK_SCRIPT, NETWORK_SCRIPT_TEXT, 0o755)
  tree.write('/lib/mesh/lease', LEASE_SCRIPT, 0o755)
  await addBiosLoader(tree)
}

/** What the agent puts on disks, so that a BIOS starts it from there. */
async function addBiosLoader(tree: FileTree): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), 'mesh-bios-'))
  try {
    const { code, core } = await makeBiosLoader(work)
    tree.write(BIOS_LOADER.code, code)
    tree.write(BIOS_LOADER.core, core)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
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

/** The agent's program as it is in memory, the file of its hash threads, and the native addon that it calls. */
async function addProgram(tree: FileTree, bundle: string, nodeFlags: readonly string[]): Promise<void> {
  const folder = join(bundle, 'agent')
  if (!existsSync(join(folder, 'agent.js')))
    throw new MeshError('USAGE', `${bundle} holds no bundle of mesh; make it with \`npm run build\``)
  await tree.copy('/mesh/hash-worker.js', join(folder, 'hash-worker.js'))
  const work = await mkdtemp(join(tmpdir(), 'mesh-agent-'))
  try {
    await makeSnapshot(join(work, 'snapshot'), bundle, nodeFlags)
    await tree.copy(AGENT_SNAPSHOT, join(work, 'snapshot'))
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  const prebuilds = `classic-level/prebuilds/linux-${process.arch}/${ADDON}`
  const places = createRequire(join(bundle, 'x.js')).resolve.paths(prebuilds) ?? []
  // In the Debian package it lies beside the bundle.
  const inPlaces = [join(bundle, ADDON), ...places.map((place) => join(place, prebuilds))]
  const addon = inPlaces.find((path) => existsSync(path))
  if (addon === undefined)
    throw new MeshError('USAGE', `${prebuilds}, which mesh needs, is not installed beside ${bundle}`)
  await tree.copy(`/mesh/${ADDON}`, addon)
}
