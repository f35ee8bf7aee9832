import { chmod, lutimes, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { SERVING_NICE } from '../../node/agent/offer/limits.ts'
import { meshUnits } from '../cli/install/mesh-units.ts'
import { MARKER } from '../cli/install/unit-text.ts'
import { START_FLAGS } from '../lab/node-flags.ts'
import { makeBundle } from '../make-bundle.ts'
import { commandTree } from './command-tree.ts'
import { completions } from './completions.ts'
import { copyright } from './copyright.ts'
import { debianChangelog } from './debian-changelog.ts'
import { chapterOf } from './handbook.ts'
import { manPages } from './man-pages.ts'
import { nodeRuntime, stripNode } from './node-runtime.ts'
import type { PackageFacts } from './package-facts.ts'
import type { Target } from './target.ts'

const ROOT = join(import.meta.dirname, '../..')
const ADDONS = 'node_modules/classic-level/prebuilds'
const LIBRARY = 'usr/lib/lab-mesh'
const DOCUMENTS = 'usr/share/doc/lab-mesh'

/**
 * Lays out in `tree` what a package has in the root of a system. `scratch` is an empty directory for what is fetched. All
 * files belong to the time of the sources, and their rights do not depend on the umask.
 */
export async function stageTree(tree: string, scratch: string, target: Target, facts: PackageFacts): Promise<void> {
  const node = await nodeRuntime(target, scratch)
  const bundle = await makeBundle({
    directory: join(tree, LIBRARY),
    addon: join(ROOT, ADDONS, target.addon),
    facts: { version: facts.version, cache: '/var/cache/lab-mesh', program: '/usr/bin/mesh' },
  })
  await stripNode(node.binary, join(tree, LIBRARY, 'node'), target)
  const put = async (path: string, text: string | Buffer): Promise<void> => {
    await mkdir(dirname(join(tree, path)), { recursive: true })
    await writeFile(join(tree, path), text)
  }
  // Node takes files with this beside them for ES modules.
  await put(join(LIBRARY, 'package.json'), '{ "type": "module" }\n')
  await put('usr/bin/mesh', WRAPPER)
  await put('usr/lib/systemd/system/mesh-up.service', packagedUnit())
  const commands = await commandTree()
  for (const { path, text } of completions(commands)) await put(path, text)
  const date = new Date(facts.epoch * 1000).toISOString().slice(0, 10)
  for (const { file, text } of manPages({ ...facts, tree: commands, date }))
    await put(`usr/share/man/man${file.at(-1)}/${file}.gz`, zipped(text))
  await put(join(DOCUMENTS, 'copyright'), await copyright(bundle, node))
  await put(join(DOCUMENTS, 'changelog.gz'), zipped(debianChangelog(facts)))
  await put(join(DOCUMENTS, 'OPERATIONS.md.gz'), zipped(facts.handbook))
  await put(join(DOCUMENTS, 'examples/mesh.toml'), exampleOf(facts.handbook))
  await put(
    'usr/share/lintian/overrides/lab-mesh',
    await readFile(join(import.meta.dirname, 'debian/lintian-overrides')),
  )
  await mkdir(join(tree, 'var/cache/lab-mesh'), { recursive: true })
  await settle(tree, facts.epoch)
}

/** What `mesh` is on the PATH: the Node of the package, whatever Node the system has. */
const WRAPPER = `#!/bin/sh
exec /usr/lib/lab-mesh/node ${START_FLAGS.join(' ')} /usr/lib/lab-mesh/mesh.js "$@"
`

/** The unit that `mesh install` writes for a machine without a disk, before anything of the machine is known. */
function packagedUnit(): string {
  const [up, ...others] = meshUnits({
    program: ['/usr/bin/mesh'],
    state: '/var/lib/lab-mesh',
    // Without --state, that of the configuration file is taken.
    stateInFile: true,
    hooks: false,
    nice: SERVING_NICE,
  })
  if (up === undefined || others.length > 0)
    throw new Error('a machine without a disk has other units than mesh-up.service')
  return up.text.replace(
    MARKER,
    '# Part of the package lab-mesh. What `mesh install` writes to /etc/systemd/system comes before it.',
  )
}

/** The example of the handbook, with each key taken out: nothing is set before somebody takes a key in. */
function exampleOf(handbook: string): string {
  const [, example] = /```\n([\s\S]*?)```/.exec(chapterOf(handbook, '### The configuration file') ?? '') ?? []
  if (example === undefined) throw new Error('the handbook has no example of a configuration file')
  const lines = example.trimEnd().replaceAll(/^(?=[^[\n])/gm, '# ')
  return `# Copy this file to /etc/lab-mesh/mesh.toml, and take in what is needed; see mesh.toml(5).\n\n${lines}\n`
}

/** As `gzip -9n` does it. */
function zipped(text: string): Buffer {
  return gzipSync(text, { level: 9 })
}

/** Gives everything in a tree the rights that Debian Policy 10.9 asks for, and one time. */
export async function settle(path: string, epoch: number): Promise<void> {
  const found = await stat(path)
  if (found.isDirectory()) for (const name of await readdir(path)) await settle(join(path, name), epoch)
  await chmod(path, found.isDirectory() || PROGRAMS.test(path) ? 0o755 : 0o644)
  await lutimes(path, epoch, epoch)
}

const PROGRAMS = /[/](usr[/]bin[/]mesh|usr[/]lib[/]lab-mesh[/]node|DEBIAN[/](config|preinst|postinst|prerm|postrm))$/
