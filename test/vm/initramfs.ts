import { existsSync } from 'node:fs'
import { readFile, realpath, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'
import { agentTree } from '../../tools/boot/agent-tree.ts'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import { whichProgram } from '../../tools/boot/build-tool.ts'
import type { FileTree } from '../../tools/boot/file-tree.ts'
import { addModules } from '../../tools/boot/kernel-modules.ts'

const ROOT = join(import.meta.dirname, '../..')
const MODULES = ['virtio_pci', 'virtio_blk', 'loop', 'dm-era', 'ext4', 'crc32c_generic']
/** What the guest's program calls besides what the agent has. */
const PROGRAMS = ['fstrim', 'blkdiscard', 'cmp']
const INIT = `#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp /run /dev/shm /state /mnt
for module in ${MODULES.join(' ')}; do modprobe $module || echo "no module $module"; done
ip link set lo up
node /mesh/guest.js
poweroff -f
`

/** A root file system for the guest in memory: the agent's, with `test/vm/guest.ts` as its only program. `work`: a folder for the result. */
export async function buildInitramfs(kernel: KernelFiles, work: string): Promise<string> {
  const tree = await agentTree({ stripped: false })
  await addMesh(tree)
  await addModules(tree, { folder: kernel.modules, names: MODULES })
  for (const name of PROGRAMS) await tree.program(`/usr/bin/${name}`, await whichProgram(name))
  tree.write('/init', INIT, 0o755)
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, 'guest.ts')],
    write: false,
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
  tree.write('/mesh/guest.js', Buffer.from(outputFiles[0]!.contents))
  const image = join(work, 'initramfs')
  await writeFile(image, tree.pack())
  return image
}

/** Adds mesh as `npm run build` makes it, with its native addon, in `/mesh`. */
export async function addMesh(tree: FileTree): Promise<void> {
  await tree.copyFolder('/mesh', join(ROOT, 'dist'), (path) => !path.includes('/'))
  tree.write('/mesh/package.json', '{"type":"module"}')
  await addPackage(tree, 'classic-level', new Set())
}

/** What the bundle leaves out, since it holds a native addon, with all that it needs. */
async function addPackage(tree: FileTree, name: string, done: Set<string>): Promise<void> {
  const folder = join(ROOT, 'node_modules', name)
  if (done.has(name) || !existsSync(folder)) return
  done.add(name)
  const from = await realpath(folder)
  const isWanted = (path: string): boolean => !/^(deps|prebuilds\/(darwin|win32|android|linux-arm))/.test(path)
  await tree.copyFolder(`/mesh/node_modules/${name}`, from, isWanted)
  const text = await readFile(join(from, 'package.json'), 'utf8')
  const { dependencies = {} } = JSON.parse(text) as { dependencies?: Record<string, string> }
  for (const needed of Object.keys(dependencies)) await addPackage(tree, needed, done)
}
