import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readJson } from '../../protocol/document.ts'
import { MeshError } from '../../protocol/errors.ts'
import { isRecord, object, text } from '../../protocol/json-shape.ts'
import { runTool } from '../lab/run-tool.ts'
import type { Target } from './target.ts'

const ROOT = join(import.meta.dirname, '../..')
const MAX_FIELD_BYTES = 1000

/** Node for a target, as npm has it. */
interface NodeRuntime {
  readonly version: string
  readonly binary: string
  readonly licence: string
}

/**
 * Node for a target: what npm has installed, or, for another kind of machine than this one, the package that package-lock.json
 * names, unpacked in `directory`. Errors: USAGE if the package cannot be had, or is not the one of package-lock.json.
 */
export async function nodeRuntime({ nodePackage }: Target, directory: string): Promise<NodeRuntime> {
  const { version, integrity } = await lockedPackage(nodePackage)
  const installed = join(ROOT, 'node_modules', nodePackage)
  const found = existsSync(join(installed, 'bin/node'))
    ? installed
    : await fetched(nodePackage, version, integrity, directory)
  const { version: actual } = readJson(nodePackage, isPackage, await readFile(join(found, 'package.json')))
  if (actual !== version)
    throw new MeshError(
      'USAGE',
      `${nodePackage} is version ${actual}, package-lock.json says ${version}: run npm ci first`,
    )
  return { version, binary: join(found, 'bin/node'), licence: join(found, 'LICENSE') }
}

const isPackage = object({ version: text(MAX_FIELD_BYTES) })
const isLocked = object({ version: text(MAX_FIELD_BYTES), integrity: text(MAX_FIELD_BYTES) })

async function lockedPackage(name: string): Promise<{ version: string; integrity: string }> {
  const { packages } = readJson(
    'package-lock.json',
    object({ packages: isRecord }),
    await readFile(join(ROOT, 'package-lock.json')),
  )
  const locked = packages[`node_modules/${name}`]
  if (!isLocked(locked)) throw new MeshError('USAGE', `package-lock.json has no version and integrity of ${name}`)
  return locked
}

/** npm looks into its cache first. What it brings is compared with package-lock.json. */
async function fetched(name: string, version: string, integrity: string, directory: string): Promise<string> {
  const args = ['pack', '--silent', '--prefer-offline', '--pack-destination', directory, `${name}@${version}`]
  const archive = join(directory, (await runTool('npm', args)).trim())
  const actual = `sha512-${createHash('sha512')
    .update(await readFile(archive))
    .digest('base64')}`
  if (actual !== integrity) throw new MeshError('USAGE', `${name}@${version} is not what package-lock.json names`)
  await runTool('tar', [
    '-xzf',
    archive,
    '-C',
    directory,
    'package/bin/node',
    'package/LICENSE',
    'package/package.json',
  ])
  return join(directory, 'package')
}

/** Copies Node without what only a debugger reads. The tools of GNU do that for the other kind of machine, too. */
export async function stripNode(binary: string, to: string, { triplet }: Target): Promise<void> {
  await runTool(`${triplet}-strip`, ['--remove-section=.comment', '--remove-section=.note', '-o', to, binary])
  await chmod(to, 0o755)
}

/** Packages of Debian that have the libraries of Node. What Node 24 wants of them is older than Debian 10. */
const LIBRARIES: Readonly<Record<string, string>> = {
  'libc.so.6': 'libc6 (>= 2.28)',
  'libdl.so.2': 'libc6 (>= 2.28)',
  'libm.so.6': 'libc6 (>= 2.28)',
  'libpthread.so.0': 'libc6 (>= 2.28)',
  'ld-linux-x86-64.so.2': 'libc6 (>= 2.28)',
  'ld-linux-aarch64.so.1': 'libc6 (>= 2.28)',
  'libgcc_s.so.1': 'libgcc-s1 (>= 3.4)',
  'libstdc++.so.6': 'libstdc++6 (>= 8)',
  'libatomic.so.1': 'libatomic1 (>= 4.8)',
}
/** The newest symbols that those versions have. */
const NEWEST: Readonly<Record<string, readonly number[]>> = { GLIBC: [2, 28], GLIBCXX: [3, 4, 25] }

/** What must be installed for a program to start, as the field Depends has it. Throws if that is not known. */
export async function librariesOf(binary: string, { triplet }: Target): Promise<string[]> {
  const dynamic = await runTool(`${triplet}-readelf`, ['--wide', '--dynamic', '--version-info', binary])
  for (const [, name = '', version = ''] of dynamic.matchAll(/Name: (GLIBC|GLIBCXX)_([\d.]+)/g))
    if (isNewer(version.split('.').map(Number), NEWEST[name] ?? []))
      throw new Error(`${binary} needs ${name}_${version}, which is newer than the versions of the field Depends`)
  const names = [...dynamic.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name = '']) => name)
  const packages = names.map((name) => {
    const known = LIBRARIES[name]
    if (known === undefined) throw new Error(`${binary} needs ${name}, whose package is not known`)
    return known
  })
  return [...new Set(packages)].sort()
}

function isNewer(version: readonly number[], than: readonly number[]): boolean {
  const at = version.findIndex((part, i) => part !== (than[i] ?? 0))
  return at !== -1 && version[at]! > (than[at] ?? 0)
}
