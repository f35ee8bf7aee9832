import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { runTool } from '../lab/run-tool.ts'
import { librariesOf } from './node-runtime.ts'
import type { PackageFacts } from './package-facts.ts'
import { settle } from './stage-tree.ts'
import type { Target } from './target.ts'

const SCRIPTS = ['config', 'preinst', 'postinst', 'prerm', 'postrm'] as const

/** What is packed, and how hard. */
interface Packing {
  /** The tree as `stageTree` has laid it out. */
  readonly tree: string
  readonly target: Target
  readonly facts: PackageFacts
  /** Directory of the archive. */
  readonly out: string
  /** Little compression, for tests. */
  readonly fast: boolean
}

/** Writes `lab-mesh_VERSION_ARCH.tar.zst`, whose entries are those of the tree, sorted, owned by root. Returns its path. */
export async function packTarball({ tree, target, facts, out, fast }: Packing): Promise<string> {
  const plain = join(out, `lab-mesh_${facts.debianVersion}_${target.arch}.tar`)
  const owner = ['--owner=root:0', '--group=root:0', '--sort=name', '--format=gnu', `--mtime=@${facts.epoch}`]
  await runTool('tar', ['-C', tree, ...owner, '-cf', plain, ...(await readdir(tree)).sort()])
  // How many threads there are would change the bytes.
  await runTool('zstd', ['--quiet', '--force', '--rm', '--single-thread', fast ? '-1' : '-19', plain])
  return `${plain}.zst`
}

/** Writes `lab-mesh_VERSION_ARCH.deb`. The control files are put into the tree meanwhile. Returns the path of the package. */
export async function packDeb({ tree, target, facts, out, fast }: Packing): Promise<string> {
  const file = join(out, `lab-mesh_${facts.debianVersion}_${target.arch}.deb`)
  const files = await filesIn(tree)
  const control = join(tree, 'DEBIAN')
  await mkdir(control)
  try {
    const sums = await Promise.all(files.map(async (path) => `${await md5(path)}  ${relative(tree, path)}\n`))
    await writeFile(join(control, 'md5sums'), sums.join(''))
    await writeFile(join(control, 'control'), await controlFile(tree, files, target, facts))
    const waiting = await readFile(join(import.meta.dirname, 'debian/wait-for-restores'), 'utf8')
    for (const name of SCRIPTS) {
      const script = await readFile(join(import.meta.dirname, 'debian', name), 'utf8')
      await writeFile(
        join(control, name),
        script.replace('#INCLUDE wait-for-restores\n', () => waiting),
      )
    }
    await writeFile(join(control, 'templates'), await readFile(join(import.meta.dirname, 'debian/templates')))
    await settle(control, facts.epoch)
    await settle(tree, facts.epoch)
    // Debian 11 and older cannot read zstd.
    await runTool('env', [
      `SOURCE_DATE_EPOCH=${facts.epoch}`,
      'dpkg-deb',
      '--root-owner-group',
      '-Zxz',
      `-z${fast ? 0 : 9}`,
      '--build',
      tree,
      file,
    ])
  } finally {
    await rm(control, { recursive: true, force: true })
  }
  return file
}

async function controlFile(
  tree: string,
  files: readonly string[],
  target: Target,
  facts: PackageFacts,
): Promise<string> {
  const sizes = await Promise.all(files.map(async (path) => Math.ceil((await stat(path)).size / 1024)))
  const libraries = await librariesOf(join(tree, 'usr/lib/lab-mesh/node'), target)
  return `Package: lab-mesh
Version: ${facts.debianVersion}
Architecture: ${target.arch}
Maintainer: ${facts.maintainer}
Installed-Size: ${sizes.reduce((sum, size) => sum + size, 0)}
Depends: debconf (>= 0.5) | debconf-2.0, ${libraries.join(', ')}
Recommends: dmsetup, thin-provisioning-tools
Suggests: dnsmasq-base, ipxe, qemu-utils, smartmontools
Section: admin
Priority: optional
Description: brings the disks of a computer lab back to one signed image
 Every machine of a computer lab holds blocks of a signed disk image on its own
 disk, and serves them to the others: no server is needed. At each boot a
 machine fetches exactly the blocks that differ, checks each against the signed
 image, writes them, and only then lets the operating system start.
 .
 The package has its own Node.js, which nothing else uses.
`
}

/** Paths of all files of a tree, sorted. */
async function filesIn(tree: string): Promise<string[]> {
  const found = await readdir(tree, { recursive: true, withFileTypes: true })
  return found
    .filter((one) => one.isFile())
    .map((one) => join(one.parentPath, one.name))
    .sort()
}

async function md5(path: string): Promise<string> {
  return createHash('md5')
    .update(await readFile(path))
    .digest('hex')
}
