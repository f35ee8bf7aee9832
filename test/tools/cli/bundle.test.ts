import { execFile } from 'node:child_process'
import { cp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'
import { OLDEST_NODE } from '../../../tools/cli/node-release.ts'
import { VERSION } from '../../../tools/cli/version.ts'
import { LATE_FLAGS, NODE_FLAGS, START_FLAGS } from '../../../tools/lab/node-flags.ts'
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
    expect(first).toBe(`#!/usr/bin/env -S node ${START_FLAGS.join(' ')}`)
    const { scripts, engines } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
    expect(scripts.mesh).toBe(`node ${START_FLAGS.join(' ')} tools/mesh.ts`)
    expect(engines.node).toBe(`>=${OLDEST_NODE}.0`)
  })

  it('says under an older Node what is wrong, for people and for programs', async () => {
    await writeFile(
      dir('old.cjs'),
      `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })
       process.getBuiltinModule = undefined`,
    )
    const { stdout, stderr, code } = await run(process.execPath, [
      ...['--require', dir('old.cjs')],
      ...[join(ROOT, 'dist/mesh.js'), 'status', '--json'],
    ]).then(
      () => expect.unreachable(),
      (error: { stdout: string; stderr: string; code: number }) => error,
    )
    const message = 'this is Node 20.20.2, and mesh needs Node 24.15 or newer'
    expect(stderr).toContain(`mesh: ${message}\n      Install the Debian package lab-mesh`)
    expect(JSON.parse(stdout)).toMatchObject({ event: 'error', code: 'NODE_TOO_OLD', message })
    expect(code).toBe(2)
  })

  it('sets the late flags, but none that was given', async () => {
    await writeFile(dir('told.cjs'), `require('node:v8').setFlagsFromString = (flag) => console.log(flag)`)
    const set = async (...flags: string[]): Promise<string[]> => {
      const args = [...flags, '--require', dir('told.cjs'), join(ROOT, 'dist/mesh.js'), '--version']
      return (await run(process.execPath, args)).stdout.trim().split('\n')
    }
    expect(await set()).toEqual([...LATE_FLAGS, VERSION])
    expect(await set('--maglev')).toEqual([...LATE_FLAGS.filter((flag) => flag !== '--no-maglev'), VERSION])
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
