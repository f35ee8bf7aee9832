import { spawn } from 'node:child_process'
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { MachineConfig } from '../../../node/state/machine-config.ts'
import { StateDirectory } from '../../../node/state/state-directory.ts'
import type { DocumentShape } from '../../../protocol/document.ts'
import { isRecord, natural, object } from '../../../protocol/json-shape.ts'
import { mount } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MACHINE: MachineConfig = {
  site: 'lab',
  siteId: 'ab'.repeat(32),
  name: 'm1',
  id: '12D3KooWtest',
  role: 'machine',
  image: 'model',
  disk: '/dev/sdb',
  listen: [],
}

const THING: DocumentShape<{ readonly n: number }> = {
  name: 'a thing',
  shape: object({ n: natural() }),
  fault: 'STATE_CORRUPT',
}

async function opened(directory: string, options = { create: true }): Promise<StateDirectory> {
  const state = await StateDirectory.open(directory, options)
  onTestFinished(() => state.close())
  return state
}

describe('a state directory', () => {
  it('is made once and remembers', async () => {
    const directory = join(await temporaryDirectory(), 'deep', 'state')
    const state = await StateDirectory.open(directory, { create: true })
    expect(state.machine).toBeUndefined()
    await state.saveMachine(MACHINE)
    await state.shelf('things', THING).put('one', { n: 1 })
    await state.subdirectory('trees')
    await state.close()
    expect(await readFile(join(directory, 'format'), 'utf8')).toBe('lab-mesh-state 1\n')
    expect((await stat(directory)).mode & 0o777).toBe(0o700)

    const again = await opened(directory, { create: false })
    expect(again.machine).toEqual(MACHINE)
    expect(await again.shelf('things', THING).get('one')).toEqual({ n: 1 })
    expect(again.path('trees')).toBe(join(directory, 'trees'))
    expect((await stat(again.path('trees'))).isDirectory()).toBe(true)
  })

  it('goes on without a damaged document that only saves work, tells of it once, and takes it out', async () => {
    const directory = await temporaryDirectory()
    const state = await StateDirectory.open(directory, { create: true })
    const things = state.shelf('things', { name: 'anything', shape: isRecord, fault: 'STATE_CORRUPT' })
    for (const [key, value] of Object.entries({
      a: { n: 1 },
      b: { n: 'x' },
      c: {},
      d: { n: 4, format: 2 },
      e: { n: 5 },
    }))
      await things.put(key, value)
    // What carries truth is refused.
    await expect(state.shelf('things', THING).get('b')).rejects.toMatchObject({ code: 'STATE_CORRUPT' })
    const told: string[] = []
    state.onRefused((text) => told.push(text))
    const read = async (): Promise<unknown[]> => {
      const found: unknown[] = []
      for await (const [key] of state.hints('things', THING).iterator()) found.push(key)
      return found
    }
    expect(await read()).toEqual(['a', 'e'])
    expect(await read()).toEqual(['a', 'e'])
    expect(await state.hints('things', THING).get('d')).toBeUndefined()
    expect(told).toEqual(['a thing is damaged: n is missing or wrong; mesh goes on without it'])
    // A later version can read its own.
    expect(await things.keys()).toEqual(['a', 'd', 'e'])
    await state.close()
  })

  it('keeps what is in a directory that is not one', async () => {
    const directory = await temporaryDirectory()
    await writeFile(join(directory, 'thesis.txt'), 'x')
    await expect(StateDirectory.open(directory, { create: true })).rejects.toMatchObject({
      code: 'STATE_CORRUPT',
      message: `${directory} is no state directory, but holds thesis.txt`,
    })
    expect(await readdir(directory)).toEqual(['thesis.txt'])
  })

  it('may be the root of a file system, and a creation cut short goes on', async () => {
    const directory = await temporaryDirectory()
    await mkdir(join(directory, 'lost+found'))
    await writeFile(join(directory, 'format.new'), 'lab-me')
    await opened(directory)
    expect((await readdir(directory)).sort()).toEqual(['db', 'format', 'holder.json', 'lost+found'])
  })

  it.each([{ create: false }, { create: false, readOnly: true }])(
    'that is not there is missing (%o)',
    async (options) => {
      const directory = join(await temporaryDirectory(), 'none')
      await expect(StateDirectory.open(directory, options)).rejects.toMatchObject({ code: 'STATE_MISSING' })
      await expect(stat(directory)).rejects.toMatchObject({ code: 'ENOENT' })
    },
  )

  it.each([
    ['lab-mesh-state 2\n', 'FORMAT_NEWER'],
    ['lab-mesh-state x\n', 'STATE_CORRUPT'],
    ['other 1\n', 'STATE_CORRUPT'],
    ['', 'STATE_CORRUPT'],
  ])('with format %j is left alone: %s', async (format, code) => {
    const directory = await temporaryDirectory()
    await writeFile(join(directory, 'format'), format)
    await expect(StateDirectory.open(directory, { create: true })).rejects.toMatchObject({ code })
    expect(await readdir(directory)).toEqual(['format'])
    expect(await readFile(join(directory, 'format'), 'utf8')).toBe(format)
  })

  it.each(['', '{', '[]', 'null', '{"site":"lab"}'])('with machine.json %j is corrupt', async (text) => {
    const directory = await temporaryDirectory()
    await (await StateDirectory.open(directory, { create: true })).close()
    await writeFile(join(directory, 'machine.json'), text)
    await expect(StateDirectory.open(directory, { create: false })).rejects.toMatchObject({ code: 'STATE_CORRUPT' })
  })

  it('with a damaged database is corrupt, not in use', async () => {
    // The word is in the path, which LevelDB's messages name.
    const directory = join(await temporaryDirectory(), 'lock')
    await (await StateDirectory.open(directory, { create: true })).close()
    await writeFile(join(directory, 'db', 'CURRENT'), 'nonsense')
    await expect(StateDirectory.open(directory, { create: false })).rejects.toMatchObject({
      code: 'STATE_CORRUPT',
      detail: { path: join(directory, 'db') },
    })
  })

  it('opened to read only has no lock, no database, and changes nothing', async () => {
    const directory = await temporaryDirectory()
    const state = await opened(directory)
    await state.saveMachine(MACHINE)
    const reader = await StateDirectory.open(directory, { create: false, readOnly: true })
    expect(reader.machine).toEqual(MACHINE)
    expect(() => reader.shelf('things', THING)).toThrow('read-only')
    await reader.close()
    expect(await readdir(directory)).toContain('holder.json')
  })
})

describe('the lock', () => {
  it('names the command and the pid of the holder, in the same process and in another', async () => {
    const directory = await temporaryDirectory()
    const state = await StateDirectory.open(directory, { create: true, command: 'seed' })
    await expect(StateDirectory.open(directory, { create: true })).rejects.toMatchObject({
      code: 'STATE_IN_USE',
      message: `${directory} is in use by mesh seed (pid ${process.pid})`,
    })
    await state.close()
    expect(await readdir(directory)).not.toContain('holder.json')

    const holder = await holdElsewhere(directory)
    await expect(StateDirectory.open(directory, { create: false })).rejects.toMatchObject({
      code: 'STATE_IN_USE',
      message: `${directory} is in use by mesh up (pid ${holder.pid})`,
    })
    await holder.kill()
    // What a killed process leaves behind holds nobody up.
    expect(await readdir(directory)).toContain('holder.json')
    await opened(directory)
  })

  it('does not name a process that is gone', async () => {
    const directory = await temporaryDirectory()
    await opened(directory)
    const gone = spawn(process.execPath, ['-e', ''])
    await new Promise((resolve) => gone.once('exit', resolve))
    await writeFile(join(directory, 'holder.json'), JSON.stringify({ pid: gone.pid, command: 'up' }))
    await expect(StateDirectory.open(directory, { create: true })).rejects.toMatchObject({
      code: 'STATE_IN_USE',
      message: `${directory} is in use by another mesh process`,
    })
  })

  it('is not given away by closing twice', async () => {
    const directory = await temporaryDirectory()
    const first = await StateDirectory.open(directory, { create: true })
    await first.close()
    await opened(directory)
    await first.close()
    expect(await readdir(directory)).toContain('holder.json')
  })
})

describe('a directory that cannot be written', () => {
  it('is named when it is on a file system for reading only', async (context) => {
    const directory = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'ro', 'none', directory)
    await expect(StateDirectory.open(directory, { create: true })).rejects.toMatchObject({ code: 'STATE_UNWRITABLE' })
  })

  it('is named when the place is taken by a file', async () => {
    const directory = join(await temporaryDirectory(), 'file')
    await writeFile(directory, 'x')
    for (const path of [directory, join(directory, 'below')]) {
      await expect(StateDirectory.open(path, { create: true })).rejects.toMatchObject({ code: 'STATE_UNWRITABLE' })
    }
  })

  it('is named when it belongs to somebody else', async (context) => {
    if (process.geteuid?.() !== 0) context.skip('needs root, to become somebody else')
    const directory = await temporaryDirectory()
    await chmod(directory, 0o755)
    await (await StateDirectory.open(join(directory, 'state'), { create: true })).close()
    await chmod(join(directory, 'state'), 0o755)
    process.seteuid!(65534)
    try {
      for (const name of ['state', 'other']) {
        const opening = StateDirectory.open(join(directory, name), { create: true })
        await expect(opening).rejects.toMatchObject({ code: 'STATE_UNWRITABLE' })
      }
    } finally {
      process.seteuid!(0)
    }
  })

  it('is named when it is full', async (context) => {
    const directory = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'size=64k', 'none', directory)
    const state = join(directory, 'state')
    await mkdir(state)
    await writeFile(join(directory, 'ballast'), new Uint8Array(60 * 1024))
    await expect(StateDirectory.open(state, { create: true })).rejects.toMatchObject({ code: 'DISK_FULL' })
    await rm(join(directory, 'ballast'))
    const roomy = await opened(state)
    await roomy.shelf('things', THING).putDurable('small', { n: 1 })
    const large = { n: 1, more: 'x'.repeat(200_000) }
    const stored = roomy.shelf('things', THING).putDurable('large', large)
    await expect(stored).rejects.toMatchObject({ code: 'DISK_FULL' })
  })
})

/** Another process that opened the directory as `mesh up` does. */
async function holdElsewhere(directory: string): Promise<{ pid: number; kill: () => Promise<void> }> {
  const module = new URL('../../../node/state/state-directory.ts', import.meta.url).href
  const script = `
    const { StateDirectory } = await import(${JSON.stringify(module)})
    await StateDirectory.open(process.argv[1], { create: false, command: 'up' })
    console.log('holding')
    setInterval(() => undefined, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await exited
  }
  onTestFinished(kill)
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve())
    child.once('exit', () => reject(new Error('the other process ended')))
  })
  return { pid: child.pid!, kill }
}
