/**
 * The folder tools/package makes the packages that machines are set up from: `npm run package`.
 * - `stage-tree` lays out what a package has: the bundle, Node (`node-runtime`), the unit, papers. `archives` packs it.
 * - `man-pages` (in `roff`) and `completions` come from the definitions of the commands (`command-tree`) and from chapters of
 *   the `handbook`; `debian-changelog` and `copyright` from CHANGELOG.md and the licences of what is bundled.
 * - `package-facts` is what all packages have in common, `target` what differs between kinds of machines.
 * - The folder `debian` has the scripts that dpkg runs.
 */

import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { makePath } from '../../node/state/make-path.ts'
import { EXIT, errnoOf, isMeshError, MeshError } from '../../protocol/errors.ts'
import { formatBytes } from '../cli/format.ts'
import { packDeb, packTarball } from './archives.ts'
import { type PackageFacts, packageFacts } from './package-facts.ts'
import { stageTree } from './stage-tree.ts'
import { TARGETS, type Target } from './target.ts'

const ARCHES = TARGETS.map(({ arch }) => arch).join(', ')
const HELP = `npm run package -- [--arch ARCH] [--out DIR] [--version VERSION] [--fast]

Makes lab-mesh_VERSION_ARCH.deb and lab-mesh_VERSION_ARCH.tar.zst. The same commit makes the same bytes.

  --arch ARCH        ${ARCHES}, or all (default: that of this machine)
  --out DIR          where they go (default: packages)
  --version VERSION  instead of that of package.json
  --fast             compress little, for tests
`

/** The flags as given, checked. Errors: USAGE. */
function readFlags() {
  const { values } = parseArgs({
    options: {
      arch: { type: 'string', default: process.arch === 'arm64' ? 'arm64' : 'amd64' },
      out: { type: 'string', default: 'packages' },
      version: { type: 'string' },
      fast: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const targets = TARGETS.filter(({ arch }) => values.arch === 'all' || values.arch === arch)
  if (targets.length === 0) throw new MeshError('USAGE', `--arch ${values.arch} is none of ${ARCHES}, all`)
  return { ...values, targets, out: resolve(values.out) }
}

async function main(): Promise<number> {
  const { targets, out, version, fast, help } = readFlags()
  if (help) {
    process.stdout.write(HELP)
    return EXIT.ok
  }
  const facts = await packageFacts(version)
  await makePath(out).catch((cause: unknown) => {
    throw new MeshError('USAGE', `--out ${out} cannot be made (${errnoOf(cause)})`, { cause })
  })
  for (const target of targets)
    for (const file of await makePackages(target, facts, out, fast))
      console.log(`${file}  ${formatBytes((await stat(file)).size)}`)
  return EXIT.ok
}

async function makePackages(target: Target, facts: PackageFacts, out: string, fast: boolean): Promise<string[]> {
  const directory = await mkdtemp(join(tmpdir(), 'mesh-package-'))
  try {
    const tree = join(directory, 'tree')
    const scratch = join(directory, 'scratch')
    await mkdir(scratch)
    await stageTree(tree, scratch, target, facts)
    const packing = { tree, target, facts, out, fast }
    return [await packTarball(packing), await packDeb(packing)]
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  const { message } = error instanceof Error ? error : { message: String(error) }
  const isOption = error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS')
  console.error(`package: ${message}${isOption ? '\n         npm run package -- --help' : ''}`)
  process.exitCode = isOption ? EXIT.usage : isMeshError(error) ? error.exitCode : EXIT.unexpected
}
