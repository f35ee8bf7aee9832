import { mkdir, readdir, rmdir, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { isOwn, listenInPlace, runFolder, socketPlaces } from '../../../node/state/socket-place.ts'
import { mount, orSkip } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const bind = async (path: string): Promise<Server> => {
  const server = createServer((socket) => socket.end('hello'))
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve))
  return server
}

async function speaks(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    connect(path).setEncoding('utf8').on('data', resolve).on('error', reject)
  })
}

const close = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()))

describe('the socket of a directory', () => {
  it('lies in the directory', async () => {
    const directory = await temporaryDirectory()
    const { listening, release } = await listenInPlace(directory, 'x.sock', bind)
    expect((await stat(join(directory, 'x.sock'))).isSocket()).toBe(true)
    expect(await speaks(socketPlaces(directory, 'x.sock')[0]!)).toBe('hello')
    await close(listening)
    await release()
    expect(await readdir(directory)).toEqual([])
  })

  it('lies elsewhere if the path is too long, where only this user can reach it', async () => {
    const directory = join(await temporaryDirectory(), 'x'.repeat(200))
    await mkdir(directory)
    const link = join(await temporaryDirectory(), 'link')
    await symlink(directory, link)
    const { listening, release } = await listenInPlace(directory, 'x.sock', bind)
    const [place, ...others] = socketPlaces(directory, 'x.sock')
    expect(others).toEqual([])
    expect(Buffer.byteLength(place!)).toBeLessThanOrEqual(107)
    expect(dirname(dirname(place!))).toBe(runFolder())
    expect((await stat(dirname(place!))).mode & 0o777).toBe(0o700)
    expect(isOwn(dirname(place!))).toBe(true)
    expect(await speaks(place!)).toBe('hello')
    // Another path to the directory leads to the same socket.
    expect(socketPlaces(link, 'x.sock')).toContain(place)
    await close(listening)
    await release()
    await expect(stat(dirname(place!))).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('lies elsewhere if the file system keeps no sockets', async (context) => {
    const image = join(await temporaryDirectory(), 'fat.img')
    await writeFile(image, '')
    await truncate(image, 8 * 1024 * 1024)
    await orSkip(context, 'mkfs.fat', [image])
    const directory = await temporaryDirectory()
    await mount(context, '-o', 'loop', image, directory)
    const { listening, release } = await listenInPlace(directory, 'x.sock', bind)
    const places = socketPlaces(directory, 'x.sock')
    await expect(stat(places[0]!)).rejects.toMatchObject({ code: 'ENOENT' })
    expect(await speaks(places[1]!)).toBe('hello')
    await close(listening)
    await release()
  })

  it.each(['EPERM', 'EOPNOTSUPP', 'EROFS', 'EINVAL'])('lies elsewhere after %s', async (code) => {
    const directory = await temporaryDirectory()
    const tried: string[] = []
    const { listening, release } = await listenInPlace(directory, 'x.sock', async (path) => {
      tried.push(path)
      if (tried.length === 1) throw Object.assign(new Error(code), { code })
      return path
    })
    expect(tried).toEqual(socketPlaces(directory, 'x.sock'))
    expect(listening).toBe(tried[1])
    await release()
  })

  it.each([
    ['EPERM', 'STATE_UNWRITABLE', 2],
    ['EMFILE', 'SYSTEM_LIMIT', 1],
    ['EADDRINUSE', 'EADDRINUSE', 1],
  ])('%s everywhere is an error', async (code, expected, times) => {
    let tries = 0
    const listened = listenInPlace(await temporaryDirectory(), 'x.sock', async () => {
      tries++
      throw Object.assign(new Error(code), { code })
    })
    await expect(listened).rejects.toMatchObject({ code: expected })
    expect(tries).toBe(times)
  })

  it('is not put into a folder of another user, or one that others may change', async () => {
    const directory = join(await temporaryDirectory(), 'x'.repeat(200))
    await mkdir(directory)
    const folder = dirname(socketPlaces(directory, 'x.sock')[0]!)
    await mkdir(folder, { mode: 0o755 })
    expect(isOwn(folder)).toBe(false)
    await expect(listenInPlace(directory, 'x.sock', bind)).rejects.toMatchObject({
      code: 'STATE_UNWRITABLE',
      message: `${folder} belongs to another user, or others may change it`,
    })
    await rmdir(folder).catch(() => undefined)
  })
})
