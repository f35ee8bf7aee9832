import { execFile } from 'node:child_process'
import { cp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'
import { VERSION } from '../../../tools/cli/version.ts'
import { NODE_FLAGS } from '../../../tools/lab/node-flags.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const ROOT = join(import.meta.dirname, '../../..')
const run = promisify(execFile)

describe('the bundle', () => {
  const dir = useTempDir()
  const version = async (): Promise<string> =>
    (await run(process.execPath, [...NODE_FLAGS, dir('dist', 'mesh.js'), '--version'])).stdout.trim()

  beforeAll(async () => {
    const built = await stat(join(ROOT, 'dist/mesh.js')).catch(() => undefined)
    if (built === undefined) await run(process.execPath, [join(ROOT, 'tools/build.ts')])
  })

  it('starts with the flags of Node that package.json names, too', async () => {
    const [first] = (await readFile(join(ROOT, 'dist/mesh.js'), 'utf8')).split('\n')
    expect(first).toBe(`#!/usr/bin/env -S node ${NODE_FLAGS.join(' ')}`)
    const { scripts } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
    expect(scripts.mesh).toBe(`node ${NODE_FLAGS.join(' ')} tools/mesh.ts`)
  })

  it('keeps what was compiled beside it, and starts where it cannot', async () => {
    await cp(join(ROOT, 'dist'), dir('dist'), {
      recursive: true,
      filter: (path) => !path.startsWith(join(ROOT, 'dist/cache')),
    })
    expect(await version()).toBe(VERSION)
    expect(await readdir(dir('dist', 'cache'))).not.toEqual([])
    await rm(dir('dist', 'cache'), { recursive: true })
    await writeFile(dir('dist', 'cache'), 'in its place')
    expect(await version()).toBe(VERSION)
  })
})
