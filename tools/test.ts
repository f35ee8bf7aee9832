import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readJson } from '../protocol/document.ts'
import { hasTool, PACKAGES } from './lab/run-tool.ts'
import { isTestReport, summarise, type TestReport } from './test-summary.ts'

/**
 * `npm test`: installs the Debian packages that tests call, if it can, then runs linter, types, build and all tests.
 * Its last line is `N passed, N failed, N skipped`. Every skipped test says why above it.
 */
await installPackages()
const failed: string[] = []
step('lint', 'biome', ['check', '--error-on-warnings', '.'])
step('types', 'tsc', ['--noEmit'])
step('build', process.execPath, ['tools/build.ts'])
const report = runTests()
if (report === undefined && !failed.includes('tests')) failed.push('tests')
if (failed.length > 0) console.error(`failed: ${failed.join(', ')}`)
console.log(summarise(report, failed))
process.exitCode = failed.length > 0 ? 1 : 0

function step(name: string, command: string, args: readonly string[]): void {
  console.log(`--- ${name}`)
  const { status } = spawnSync(command, args, { stdio: 'inherit' })
  if (status !== 0) failed.push(name)
}

function runTests(): TestReport | undefined {
  const directory = mkdtempSync(join(tmpdir(), 'mesh-test-report-'))
  const file = join(directory, 'report.json')
  try {
    step('tests', 'vitest', [
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${file}`,
      ...process.argv.slice(2),
    ])
    return readJson('the report of vitest', isTestReport, readFileSync(file))
  } catch {
    // Vitest has ended before it wrote a report.
    return undefined
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Installs missing packages as root on Debian. Elsewhere it names them, and tests that need them are skipped. */
async function installPackages(): Promise<void> {
  const missing = new Set<string>()
  for (const [tool, name] of Object.entries(PACKAGES)) if (!(await hasTool(tool))) missing.add(name)
  if (missing.size === 0) return
  const names = [...missing].sort()
  if (process.getuid?.() === 0 && (await hasTool('apt-get'))) {
    console.log(`--- installing ${names.join(', ')}`)
    spawnSync('apt-get', ['update', '-q'], { stdio: 'ignore' })
    const install = ['install', '-y', '-q', '--no-install-recommends', ...names]
    const { status } = spawnSync('apt-get', install, {
      stdio: 'ignore',
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
    if (status === 0) return
  }
  console.log(`missing, so that some tests are skipped: the Debian packages ${names.join(', ')}`)
}
