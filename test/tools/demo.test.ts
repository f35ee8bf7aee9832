import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { hasTool } from '../../tools/lab/run-tool.ts'

const run = promisify(execFile)
const DEMO = join(import.meta.dirname, '../../tools/demo/demo.ts')

const hasMke2fs = await hasTool('mke2fs')
if (!hasMke2fs) console.warn('SKIPPED: mke2fs is not installed (package e2fsprogs), so there is no image for the demo')

describe('the demo', () => {
  it.skipIf(!hasMke2fs)('ends with its result as one line of JSON, which says that every judge agreed', async () => {
    const { stdout } = await run(process.execPath, [DEMO, '--json', '--size', '64'], { maxBuffer: 16 * 1024 ** 2 })
    const result = JSON.parse(stdout.trimEnd().split('\n').at(-1)!)
    expect(Object.keys(result)).toEqual(['event', 'verified', 'seconds', 'machines', 'checks'])
    expect(result).toMatchObject({ event: 'demo', verified: true, seconds: expect.any(Number) })
    const steps = result.machines.map(({ step, verified }: { step: string; verified: boolean }) => [step, verified])
    expect(steps).toEqual([...Array(4).fill(['provision', true]), ...Array(2).fill(['restore', true])])
    const checks: { machine: string; check: string; ok: boolean; note: string }[] = result.checks
    expect(checks.filter(({ check }) => check === 'bytes').map(({ machine }) => machine)).toEqual([
      'pc1',
      'pc2',
      'pc3',
      'pc4',
    ])
    expect(checks.filter(({ ok }) => !ok)).toEqual([])
  })

  it('refuses an image that is too small', async () => {
    const failed = await run(process.execPath, [DEMO, '--size', '63']).catch((error) => error)
    expect(failed).toMatchObject({ code: EXIT.usage, stdout: '' })
    expect(failed.stderr).toMatch(/^demo: --size 63 is no number of MiB from 64 up\n/)
  })
})
