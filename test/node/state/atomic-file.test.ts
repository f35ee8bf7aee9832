import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { storageError, writeFileAtomic } from '../../../node/state/atomic-file.ts'
import { mount } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

describe('writeFileAtomic', () => {
  it('replaces the content and leaves nothing beside it', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'file')
    await writeFileAtomic(path, 'first, and longer')
    await writeFileAtomic(path, Buffer.from('second'))
    expect(await readFile(path, 'utf8')).toBe('second')
    expect(await readdir(directory)).toEqual(['file'])
  })

  it('gives the file the mode asked for, whatever a crash left behind', async () => {
    const path = join(await temporaryDirectory(), 'secret')
    await writeFile(`${path}.new`, 'half a', { mode: 0o666 })
    await writeFileAtomic(path, 'whole', 0o600)
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    expect(await readFile(path, 'utf8')).toBe('whole')
  })

  it('never mixes two replacements that overlap; the last one called stays', async () => {
    const path = join(await temporaryDirectory(), 'file')
    const texts = Array.from({ length: 20 }, (_, i) => String(i).repeat(200_000 - i * 7000))
    const seen = new Set<string>()
    const writing = Promise.all(texts.map((text) => writeFileAtomic(path, text)))
    let done = false
    void writing.then(() => {
      done = true
    })
    while (!done) seen.add(await readFile(path, 'utf8').catch(() => texts[0]!))
    await writing
    expect([...seen].filter((text) => !texts.includes(text))).toEqual([])
    expect(await readFile(path, 'utf8')).toBe(texts.at(-1))
  })

  it('goes on after a failure', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'file')
    await mkdir(path)
    const failing = writeFileAtomic(path, 'x')
    const next = writeFileAtomic(path, 'y')
    await expect(failing).rejects.toMatchObject({ code: 'EISDIR' })
    await expect(next).rejects.toMatchObject({ code: 'EISDIR' })
    expect(await readdir(directory)).toEqual(['file'])
  })

  it('keeps the old content when the file system is full', async (context) => {
    const directory = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'size=128k', 'none', directory)
    const path = join(directory, 'file')
    await writeFileAtomic(path, 'old')
    await expect(writeFileAtomic(path, new Uint8Array(1024 * 1024))).rejects.toMatchObject({
      code: 'DISK_FULL',
      detail: { path },
    })
    expect(await readFile(path, 'utf8')).toBe('old')
    expect(await readdir(directory)).toEqual(['file'])
    await writeFileAtomic(path, new Uint8Array(32 * 1024))
  })

  it('names a file system that cannot be written', async (context) => {
    const directory = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'ro', 'none', directory)
    const path = join(directory, 'file')
    await expect(writeFileAtomic(path, 'x')).rejects.toMatchObject({
      code: 'STATE_UNWRITABLE',
      message: `${path} cannot be written (EROFS): its file system is read-only`,
    })
  })
})

it.each([
  ['ENOSPC', 'DISK_FULL'],
  ['EDQUOT', 'DISK_FULL'],
  ['EACCES', 'STATE_UNWRITABLE'],
  ['ENOLCK', 'STATE_UNWRITABLE'],
  ['EPERM', 'STATE_UNWRITABLE'],
  ['EROFS', 'STATE_UNWRITABLE'],
  ['EIO', 'DISK_IO'],
])('%s of the state is %s', (errno, code) => {
  const cause = Object.assign(new Error('x'), { code: errno })
  expect(storageError(cause, '/state/file')).toMatchObject({ code, detail: { path: '/state/file' }, cause })
})

it('leaves other errors as they are', () => {
  const error = Object.assign(new Error('x'), { code: 'ELOOP' })
  expect(storageError(error, '/state/file')).toBe(error)
})
