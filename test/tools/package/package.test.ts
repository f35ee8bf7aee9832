import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { useTempDir } from '../../support/temp-dir.ts'

const PROGRAM = join(import.meta.dirname, '../../../tools/package/package.ts')

describe('npm run package', () => {
  const dir = useTempDir()

  it('says what is wrong with its options, in one sentence', () => {
    writeFileSync(dir('file'), '')
    const cases = [
      [['--arch', 'mips'], '--arch mips is none of amd64, arm64, all'],
      [['--version', 'v 1'], 'v 1 is no version that a package can have'],
      [['--out', '/proc/none/below'], 'cannot be made (ENOENT)'],
      [['--out', dir('file')], 'cannot be made (EEXIST)'],
      [['--nope'], "Unknown option '--nope'"],
    ] as const
    for (const [args, message] of cases) {
      const { status, stderr } = spawnSync(process.execPath, [PROGRAM, ...args], { encoding: 'utf8' })
      expect(stderr).toContain(message)
      expect(stderr).not.toContain('    at ')
      expect(status).toBe(2)
    }
  })
})
