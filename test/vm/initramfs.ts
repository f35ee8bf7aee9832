import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, readFile, realpath, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import { runTool } from '../../tools/lab/run-tool.ts'
import type { Kernel } from './kernel.ts'

const execute = promisify(execFile)
const ROOT = join(import.meta.dirname, '../..')

/** In the order in which they are loaded. */
const MODULES = [
  ...['virtio/virtio_ring', 'virtio/virtio', 'virtio/virtio_pci_modern_dev', 'virtio/virtio_pci_legacy_dev'],
  ...['virtio/virtio_pci', 'block/virtio_blk', 'block/loop'],
  ...['md/dm-mod', 'md/dm-bufio', 'md/persistent-data/dm-persistent-data', 'md/dm-era'],
].map((name) => `drivers/${name}`)
const OTHER_MODULES = [
  'lib/crc16',
  'crypto/crc32c_generic',
  'lib/libcrc32c',
  'fs/mbcache',
  'fs/jbd2/jbd2',
  'fs/ext4/ext4',
]

/** What busybox does not do, or not as well. era_invalidate and era_restore are names of pdata_tools. */
const PROGRAMS = ['dmsetup', 'pdata_tools', 'losetup', 'blockdev', 'fstrim', 'blkdiscard']
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp /run /dev/shm /state /mnt
while read module; do insmod /modules/$module.ko || echo "no module $module"; done < /modules/order
ip link set lo up
node /mesh/guest.js
poweroff -f
`

/**
 * A root file system for the guest in memory: Node, the bundled command, the device-mapper tools, and `test/vm/guest.ts`
 * as its only program. `work` is a folder for files on the way.
 */
export async function buildInitramfs(kernel: Kernel, work: string): Promise<string> {
  const root = join(work, 'root')
  for (const folder of ['bin', 'sbin', 'usr/bin', 'usr/sbin', 'proc', 'sys', 'dev', 'modules', 'mesh/node_modules'])
    await mkdir(join(root, folder), { recursive: true })
  await writeFile(join(root, 'init'), INIT, { mode: 0o755 })
  await cp(await which('busybox'), join(root, 'bin/busybox'))
  await addModules(kernel, root)
  for (const name of PROGRAMS) await addProgram(await which(name), join(root, 'usr/sbin', name), root)
  for (const name of ['era_invalidate', 'era_restore', 'era_dump'])
    await symlink('pdata_tools', join(root, 'usr/sbin', name))
  await addProgram(process.execPath, join(root, 'usr/bin/node'), root)
  await addMesh(root)
  const image = join(work, 'initramfs')
  await execute('sh', ['-c', 'find . | cpio --quiet -o -H newc > "$0"', image], { cwd: root })
  return image
}

async function addModules(kernel: Kernel, root: string): Promise<void> {
  const order: string[] = []
  for (const module of [...OTHER_MODULES, ...MODULES]) {
    const name = basename(module)
    await cp(join(kernel.modules, `${module}.ko`), join(root, 'modules', `${name}.ko`))
    order.push(name)
  }
  await writeFile(join(root, 'modules/order'), `${order.join('\n')}\n`)
}

async function addMesh(root: string): Promise<void> {
  await cp(join(ROOT, 'dist'), join(root, 'mesh'), { recursive: true })
  await writeFile(join(root, 'mesh/package.json'), '{"type":"module"}')
  await build({
    entryPoints: [join(import.meta.dirname, 'guest.ts')],
    outfile: join(root, 'mesh/guest.js'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    external: ['classic-level'],
    banner: {
      js: "import { createRequire as makeRequire } from 'node:module'\nconst require = makeRequire(import.meta.url)",
    },
    logLevel: 'error',
  })
  await addPackage('classic-level', join(root, 'mesh/node_modules'))
}

/** What the bundle leaves out, since it holds a native addon, with all that it needs. */
async function addPackage(name: string, folder: string): Promise<void> {
  const from = await realpath(join(ROOT, 'node_modules', name))
  const filter = (path: string): boolean => !/\/(deps|darwin-.*|win32-.*|android-.*|linux-arm.*)$/.test(path)
  await cp(from, join(folder, name), { recursive: true, filter })
  const text = await readFile(join(from, 'package.json'), 'utf8')
  const { dependencies = {} } = JSON.parse(text) as { dependencies?: Record<string, string> }
  for (const needed of Object.keys(dependencies))
    if (!existsSync(join(folder, needed))) await addPackage(needed, folder)
}

/** A program with the libraries that ldd names, at the places where the loader looks for them. */
async function addProgram(program: string, target: string, root: string): Promise<void> {
  await cp(await realpath(program), target)
  const listed = await runTool('ldd', [program])
  for (const [, library] of listed.matchAll(/(\/\S+) \(0x/g)) {
    const place = join(root, library!)
    await mkdir(dirname(place), { recursive: true })
    await cp(await realpath(library!), place)
  }
}

async function which(name: string): Promise<string> {
  const { stdout } = await execute('sh', ['-c', 'command -v "$0"', name], {
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  })
  return realpath(stdout.trim())
}
