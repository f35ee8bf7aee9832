import { chmod, chown, lchown, mkdir, rename, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { StateDirectory } from '../../../node/state/state-directory.ts'
import { codeOf } from '../../support/error-code.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const OTHER_USER = 65_534
const isRoot = process.geteuid?.() === 0
if (!isRoot) console.log('whose the files are is not tested: only root can give files to others')

describe('who can look into a state directory', () => {
  const dir = useTempDir()
  let number = 0
  const state = (...parts: string[]): string => join(dir(`state${number}`), ...parts)

  async function make(): Promise<void> {
    number++
    await (await StateDirectory.open(state(), { create: true })).close()
    await writeFile(state('identity.pem'), 'key', { mode: 0o600 })
    await mkdir(state('keys'), { mode: 0o700 })
    await writeFile(state('keys', 'root.pem'), 'key', { mode: 0o600 })
  }

  async function wasOpen(): Promise<readonly string[]> {
    const opened = await StateDirectory.open(state(), { create: false })
    await opened.close()
    return opened.wasOpen
  }

  const modeOf = async (...parts: string[]): Promise<number> => (await stat(state(...parts))).mode & 0o777

  it('is its owner, and nothing is said', async () => {
    await make()
    expect(await wasOpen()).toEqual([])
    expect(await modeOf()).toBe(0o700)
  })

  it('was everybody: that is mended, and said once', async () => {
    await make()
    await chmod(state(), 0o777)
    expect(await wasOpen()).toEqual([
      `${state()} was open to every user of this machine (mode 0777), who could read its keys and change what this machine trusts; its mode is 0700 now`,
    ])
    expect(await modeOf()).toBe(0o700)
    expect(await wasOpen()).toEqual([])
  })

  it('was its group, or could read keys only', async () => {
    await make()
    await chmod(state(), 0o750)
    await chmod(state('identity.pem'), 0o644)
    await chmod(state('keys'), 0o755)
    await chmod(state('keys', 'root.pem'), 0o640)
    expect(await wasOpen()).toEqual([
      `${state()} was open to its group (mode 0750), who could look into it; its mode is 0700 now`,
      `${state('identity.pem')} was open to every user of this machine (mode 0644), who could read private keys; its mode is 0600 now`,
      `${state('keys')} was open to every user of this machine (mode 0755), who could read private keys; its mode is 0700 now`,
      `${state('keys', 'root.pem')} was open to its group (mode 0640), who could read private keys; its mode is 0600 now`,
    ])
    expect(await modeOf('keys', 'root.pem')).toBe(0o600)
  })

  it.runIf(isRoot).each([
    ['the directory', () => chown(state(), OTHER_USER, 0)],
    ['a key', () => chown(state('identity.pem'), OTHER_USER, 0)],
    [
      'a file that was put there while everybody could',
      async () => {
        await chmod(state(), 0o777)
        await mkdir(state('trust'))
        await writeFile(state('trust', 'planted'), '')
        await chown(state('trust', 'planted'), OTHER_USER, 0)
      },
    ],
    [
      'the link to the directory',
      async () => {
        await rename(state(), dir(`elsewhere${number}`))
        await symlink(dir(`elsewhere${number}`), state())
        await lchown(state(), OTHER_USER, 0)
      },
    ],
  ])('is another user, as %s is his: it is refused', async (_, give) => {
    await make()
    await give()
    expect(await codeOf(StateDirectory.open(state(), { create: false }))).toBe('STATE_UNSAFE')
  })

  it('may be behind a link of its own', async () => {
    await make()
    await rename(state(), dir(`elsewhere${number}`))
    await symlink(dir(`elsewhere${number}`), state())
    expect(await wasOpen()).toEqual([])
  })
})
