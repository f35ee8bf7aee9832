import { stat, symlink, writeFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { makePath } from '../../../node/state/make-path.ts'
import { errnoOf } from '../../../protocol/errors.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const errorOf = (path: string): Promise<string | undefined> => makePath(path).then(() => undefined, errnoOf)

describe('a path of directories', () => {
  const dir = useTempDir()

  it('is made, as far as it is missing', async () => {
    const path = dir('a', 'b', 'c')
    await makePath(path, 0o700)
    await makePath(path, 0o755)
    expect((await stat(path)).mode & 0o777).toBe(0o700)
    expect((await stat(dir('a'))).mode & 0o777).toBe(0o700)
    await Promise.all([makePath(dir('x', 'y')), makePath(dir('x', 'z'))])
    expect((await stat(dir('x', 'z'))).isDirectory()).toBe(true)
  })

  it('ends with an error where nothing can be made', async () => {
    await writeFile(dir('file'), '')
    await symlink(dir('nowhere'), dir('dangling'))
    expect(await errorOf(dir('file'))).toBe('EEXIST')
    expect(await errorOf(dir('file', 'below'))).toBe('ENOTDIR')
    expect(await errorOf(dir('dangling'))).toBe('ENOENT')
    // mkdir of Node with `recursive` never comes back from these.
    expect(await errorOf('/proc/x')).toBe('ENOENT')
    expect(await errorOf('/proc/x/y/z')).toBe('ENOENT')
  })
})
