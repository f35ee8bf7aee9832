import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FileTree } from '../../../tools/boot/file-tree.ts'
import { addModules } from '../../../tools/boot/kernel-modules.ts'
import { fakeModules } from '../../support/kernel-modules.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** Names, modes and contents of an archive in the form newc. */
function read(archive: Buffer): { name: string; mode: string; content: string }[] {
  const found: { name: string; mode: string; content: string }[] = []
  for (let at = 0; ; ) {
    expect(archive.toString('latin1', at, at + 6)).toBe('070701')
    const field = (index: number): number =>
      Number.parseInt(archive.toString('latin1', at + 6 + 8 * index, at + 14 + 8 * index), 16)
    const [mode, size, nameSize] = [field(1), field(6), field(11)]
    const name = archive.toString('utf8', at + 110, at + 110 + nameSize - 1)
    const content = at + Math.ceil((110 + nameSize) / 4) * 4
    if (name === 'TRAILER!!!') return found
    found.push({ name, mode: mode.toString(8), content: archive.toString('utf8', content, content + size) })
    at = content + Math.ceil(size / 4) * 4
  }
}

describe('a file tree', () => {
  it('packs folders before what is in them, the same in whatever order it was filled', () => {
    const [one, other] = [new FileTree(), new FileTree()]
    one.write('/init', '#!/bin/sh\n', 0o755)
    one.link('/bin/sh', 'busybox')
    one.write('/bin/busybox', 'ü')
    other.write('bin/busybox', 'ü')
    other.link('bin/sh', 'busybox')
    other.write('init', '#!/bin/sh\n', 0o755)
    expect(read(one.pack())).toEqual([
      { name: 'bin', mode: '40755', content: '' },
      { name: 'bin/busybox', mode: '100644', content: 'ü' },
      { name: 'bin/sh', mode: '120777', content: 'busybox' },
      { name: 'init', mode: '100755', content: '#!/bin/sh\n' },
    ])
    expect(one.pack().equals(other.pack())).toBe(true)
  })

  it('takes copies of files as they are', async () => {
    const folder = await temporaryDirectory()
    await writeFile(join(folder, 'run'), 'x', { mode: 0o700 })
    await writeFile(join(folder, 'data'), 'y', { mode: 0o600 })
    const tree = new FileTree()
    await tree.copyFolder('/mesh', folder, (path) => path !== 'other')
    expect(read(tree.pack()).map(({ name, mode }) => `${name} ${mode}`)).toEqual([
      'mesh 40755',
      'mesh/data 100644',
      'mesh/run 100755',
    ])
  })
})

describe('kernel modules', () => {
  it('bring what they need, and the lists by which modprobe finds them', async () => {
    const folder = await fakeModules(await temporaryDirectory(), {
      ext4: { depends: 'jbd2,mbcache', softdep: 'pre: crc32c', alias: 'fs-ext4' },
      jbd2: { depends: 'crc16' },
      mbcache: {},
      crc16: {},
      'crc32c-intel': { alias: 'crypto-crc32c' },
      unwanted: {},
    })
    const tree = new FileTree()
    await addModules(tree, { folder, names: ['ext4', 'crc32c_intel', 'not-there'] })
    const files = new Map(read(tree.pack()).map(({ name, content }) => [name, content]))
    const place = 'lib/modules/6.1.0-test'
    expect([...files.keys()].filter((name) => name.endsWith('.ko'))).toEqual(
      ['crc16', 'crc32c-intel', 'ext4', 'jbd2', 'mbcache'].map((name) => `${place}/kernel/${name}.ko`),
    )
    // From the last to the first they can be loaded.
    expect(files.get(`${place}/modules.dep`)).toContain(
      'kernel/ext4.ko: kernel/mbcache.ko kernel/jbd2.ko kernel/crc16.ko\n',
    )
    const order = ['crc16', 'jbd2', 'mbcache', 'ext4'].map((name) => `/${place}/kernel/${name}.ko\n`).join('')
    expect(files.get('lib/mesh/order/ext4')).toBe(order)
    expect(files.get('lib/mesh/order/nvme')).toBe('')
    expect(files.get(`${place}/modules.alias`)).toBe('alias crypto-crc32c crc32c_intel\nalias fs-ext4 ext4\n')
    expect(files.get(`${place}/modules.softdep`)).toBe('softdep ext4 pre: crc32c\n')
  })

  it('are refused if one needs what is not there, or if the folder holds none', async () => {
    const folder = await fakeModules(await temporaryDirectory(), { ext4: { depends: 'jbd2' } })
    await expect(addModules(new FileTree(), { folder, names: ['ext4'] })).rejects.toThrow(/no module jbd2/)
    const empty = await temporaryDirectory()
    await expect(addModules(new FileTree(), { folder: empty, names: ['ext4'] })).rejects.toMatchObject({
      code: 'USAGE',
    })
  })
})
