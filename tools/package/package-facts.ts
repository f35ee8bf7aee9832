import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MeshError } from '../../protocol/errors.ts'
import { VERSION } from '../cli/version.ts'
import { runTool } from '../lab/run-tool.ts'

const ROOT = join(import.meta.dirname, '../..')

/** What is the same in all packages that are made of these sources. */
export interface PackageFacts {
  readonly version: string
  /** Version as Debian counts: `1.0.0-beta.1` of npm is `1.0.0~beta.1`, which is older than 1.0.0. */
  readonly debianVersion: string
  /** Every time in the packages, in seconds since 1970: that of the commit. */
  readonly epoch: number
  /** Whom to ask: `Name <address>`. */
  readonly maintainer: string
  readonly changelog: string
  readonly handbook: string
}

/**
 * The facts of this checkout. The environment may say SOURCE_DATE_EPOCH (reproducible-builds.org), DEBFULLNAME and DEBEMAIL
 * (debchange(1)); otherwise the last commit says them. `version` replaces that of package.json. Errors: USAGE.
 */
export async function packageFacts(
  version: string = VERSION,
  env: NodeJS.ProcessEnv = process.env,
): Promise<PackageFacts> {
  const { SOURCE_DATE_EPOCH: epoch, DEBFULLNAME: name, DEBEMAIL: address } = env
  const ofCommit = async (format: string): Promise<string> =>
    runTool('git', ['-C', ROOT, 'log', '-1', `--format=${format}`]).then(
      (line) => line.trim(),
      (cause: unknown) => {
        const message = 'without a git checkout SOURCE_DATE_EPOCH, DEBFULLNAME and DEBEMAIL must be set'
        throw new MeshError('USAGE', message, { cause })
      },
    )
  const seconds = epoch ?? (await ofCommit('%ct'))
  if (!/^\d{1,12}$/.test(seconds)) throw new MeshError('USAGE', `SOURCE_DATE_EPOCH=${seconds} is no number of seconds`)
  if (!/^\d[\w.+-]*$/.test(version)) throw new MeshError('USAGE', `${version} is no version that a package can have`)
  return {
    version,
    debianVersion: version.replace('-', '~').replaceAll('-', '.'),
    epoch: Number(seconds),
    maintainer: `${name ?? (await ofCommit('%an'))} <${address ?? (await ofCommit('%ae'))}>`,
    changelog: await readFile(join(ROOT, 'CHANGELOG.md'), 'utf8'),
    handbook: await readFile(join(ROOT, 'docs/OPERATIONS.md'), 'utf8'),
  }
}
