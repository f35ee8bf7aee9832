import { chmod, chown, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { findHooks } from '../../../node/hooks/find-hooks.ts'
import { HOOK_OUTPUT_BYTES, MAX_HOOKS } from '../../../node/hooks/limits.ts'
import { runHook } from '../../../node/hooks/run-hook.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn('SKIPPED: files of other users need root')

async function hook(directory: string, name: string, script: string, mode = 0o755): Promise<string> {
  const path = join(directory, name)
  await writeFile(path, `#!/bin/sh\n${script}\n`)
  await chmod(path, mode)
  return path
}

describe('hooks are found', () => {
  it('in the order of their names, without what no hook is', async () => {
    const directory = await temporaryDirectory()
    for (const name of ['20-b', '10-Z', '10-a', '9', 'B_c']) await hook(directory, name, '')
    for (const name of ['10-a~', '10-a.dpkg-old', '.hidden', 'README.md']) await hook(directory, name, '')
    await hook(directory, 'plain', '', 0o644)
    await mkdir(join(directory, 'folder'))
    const { hooks, skipped } = await findHooks(directory)
    expect(hooks).toEqual(['10-Z', '10-a', '20-b', '9', 'B_c'].map((name) => join(directory, name)))
    expect(skipped.map(({ name }) => name)).toEqual([
      '.hidden',
      '10-a.dpkg-old',
      '10-a~',
      'README.md',
      'folder',
      'plain',
    ])
  })

  it('unless there are too many, or no directory', async () => {
    const directory = await temporaryDirectory()
    for (let i = 0; i <= MAX_HOOKS; i++) await hook(directory, String(i), '')
    await expect(findHooks(directory)).rejects.toMatchObject({
      code: 'HOOK_FAILED',
      message: expect.stringMatching(/101 hooks/),
    })
    await expect(findHooks(join(directory, 'no'))).rejects.toMatchObject({
      code: 'HOOK_FAILED',
      message: expect.stringMatching(/ENOENT/),
    })
    await expect(findHooks(join(directory, '1'))).rejects.toMatchObject({
      code: 'HOOK_FAILED',
      message: expect.stringMatching(/ENOTDIR/),
    })
  })

  it('and refused if others can write them, their folder, one above it, or what they link to', async () => {
    const above = await temporaryDirectory()
    const directory = join(above, 'hooks')
    await mkdir(directory, { mode: 0o755 })
    const path = await hook(directory, '1', '')
    const refused = (named: string) =>
      expect(findHooks(directory)).rejects.toMatchObject({ code: 'HOOK_UNSAFE', exitCode: 9, detail: { path: named } })
    for (const [changed, mode] of [
      [path, 0o775],
      [path, 0o757],
      [directory, 0o775],
      [directory, 0o1777],
      [above, 0o777],
    ] as const) {
      await chmod(changed, mode)
      await refused(changed)
      await chmod(changed, 0o755)
      expect((await findHooks(directory)).hooks).toEqual([path])
    }
    const elsewhere = await hook(above, 'target', '', 0o757)
    await symlink(elsewhere, join(directory, '2'))
    await refused(elsewhere)
    // In a sticky folder nobody can put something else in the place of another's file.
    await chmod(elsewhere, 0o755)
    await chmod(above, 0o1777)
    expect((await findHooks(directory)).hooks).toEqual([path, join(directory, '2')])
  })

  it.skipIf(!isRoot)('and refused if they are another user’s', async () => {
    const directory = await temporaryDirectory()
    const path = await hook(directory, '1', '')
    await chown(path, 65534, 65534)
    await expect(findHooks(directory)).rejects.toMatchObject({
      code: 'HOOK_UNSAFE',
      message: expect.stringMatching(/65534/),
    })
  })
})

describe('a hook is run', () => {
  const still = new AbortController().signal
  const run = async (script: string, timeoutMs = 60_000, signal = still) => {
    const directory = await temporaryDirectory()
    return runHook(await hook(directory, 'h', script), { env: { MESH_IMAGE: 'win' }, timeoutMs, signal })
  }

  it('with its environment, in /, with nothing to read', async () => {
    const outcome = await run('echo "$MESH_IMAGE $(pwd) $(cat | wc -c)"; echo later >&2')
    expect(outcome).toMatchObject({ name: 'h', ok: true, why: '' })
    expect(outcome.output.split('\n').sort()).toEqual(['later', 'win / 0'])
  })

  it('and its failure told', async () => {
    expect(await run('echo no; exit 3')).toMatchObject({ ok: false, why: 'exit code 3', output: 'no' })
    expect(await run('kill -9 $$')).toMatchObject({ ok: false, why: 'ended by SIGKILL' })
    const directory = await temporaryDirectory()
    const path = join(directory, 'bad')
    await writeFile(path, '#!/no/such/shell\n', { mode: 0o755 })
    expect(await runHook(path, { env: {}, timeoutMs: 1000, signal: still })).toMatchObject({
      ok: false,
      why: expect.stringMatching(/ENOENT/),
    })
  })

  it('if it has Windows line ends: no, and its failure says so', async () => {
    const path = join(await temporaryDirectory(), 'windows')
    await writeFile(path, '#!/bin/sh\r\necho hello\r\n', { mode: 0o755 })
    expect(await runHook(path, { env: {}, timeoutMs: 60_000, signal: still })).toMatchObject({
      ok: false,
      why: expect.stringMatching(/Windows line ends/),
    })
  })

  it('for up to a year, which is longer than one timer can be', async () => {
    expect(await run('sleep 0.2; echo done', 366 * 86_400_000)).toMatchObject({ ok: true, output: 'done' })
  })

  it('no longer than it may: it is told to end, then killed, and all it has started', async () => {
    expect(await run('trap "echo told; exit 0" TERM; sleep 600 & wait', 200)).toMatchObject({
      ok: false,
      why: 'no end within 0.2 s',
      output: 'told',
    })
    const file = join(await temporaryDirectory(), 'pid')
    const stop = new AbortController()
    const ended = run(`trap "" TERM; sleep 600 & echo $! > ${file}; wait; wait`, 60_000, stop.signal)
    const pidOf = async (): Promise<number> => Number(await readFile(file, 'utf8').catch(() => ''))
    while ((await pidOf()) === 0) await sleep(20)
    stop.abort()
    expect(await ended).toMatchObject({ ok: false, why: 'interrupted' })
    expect(await isGone(await pidOf())).toBe(true)
  })

  it('and what it leaves running ends with it', async () => {
    const outcome = await run('sleep 600 & echo $!')
    expect(outcome.ok).toBe(true)
    expect(await isGone(Number(outcome.output))).toBe(true)
  })

  it('and not all it prints is kept', async () => {
    const outcome = await run('yes | head -c 1000000')
    expect(outcome.ok).toBe(true)
    expect(outcome.output.length).toBeGreaterThan(HOOK_OUTPUT_BYTES - 2)
    expect(outcome.output.length).toBeLessThanOrEqual(HOOK_OUTPUT_BYTES)
  })
})

/** Gone, or dead and waiting for somebody to look at its exit code. */
async function isGone(pid: number): Promise<boolean> {
  expect(pid).toBeGreaterThan(1)
  for (let tries = 0; tries < 500; tries++) {
    const state = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
    if (state === '' || / Z /.test(state)) return true
    await sleep(10)
  }
  return false
}
