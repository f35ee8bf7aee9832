import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { PARTITION_TYPES } from '../../../protocol/disk-layout.ts'
import { readLayoutFile } from '../../../tools/cli/layout-file.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const GIB = 1024 ** 3
const HEAD = 'esp = "512M"\nstate = "4G"\n'
const ROOT = '[[partition]]\nimage = "root"\ntype = "root"\nsize = "20G"\n'

async function read(text: string) {
  const path = join(await temporaryDirectory(), 'layout.toml')
  await writeFile(path, text)
  return readLayoutFile(path)
}

describe('the file of a layout', () => {
  it('says what is on a disk, with sizes rounded up to a MiB', async () => {
    const windows =
      '[[partition]]\nimage = "win/11"\nlabel = "Windows"\ntype = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"\nsize = 1000000\nuuid = "1B0F3F6C-4A3E-4B0F-9A3C-0D8A1F6E2C11"\n'
    expect(await read(`${HEAD}agent = "agent"\n${ROOT}grow = true\n${windows}`)).toEqual({
      esp: GIB / 2,
      state: 4 * GIB,
      agent: 'agent',
      partitions: [
        { image: 'root', label: 'root', type: PARTITION_TYPES.root, size: 20 * GIB, grow: true },
        {
          image: 'win/11',
          label: 'Windows',
          type: PARTITION_TYPES.windows,
          size: 1024 ** 2,
          grow: false,
          uuid: '1b0f3f6c-4a3e-4b0f-9a3c-0d8a1f6e2c11',
        },
      ],
    })
  })

  it('names the systems to choose from, what is only made, and the GUID of the disk', async () => {
    const uuid = '1b0f3f6c-4a3e-4b0f-9a3c-0d8a1f6e2c11'
    const more =
      '[[partition]]\nimage = "win"\nsystem = true\ntype = "windows"\nsize = "1G"\n[[partition]]\nlabel = "home"\ntype = "home"\nsize = "1G"\n'
    const { partitions, ...disk } = await read(`uuid = "${uuid.toUpperCase()}"\n${HEAD}${ROOT}${more}`)
    expect(disk).toMatchObject({ uuid })
    expect(partitions.slice(1)).toEqual([
      { image: 'win', system: true, label: 'win', type: PARTITION_TYPES.windows, size: GIB, grow: false },
      { label: 'home', type: PARTITION_TYPES.home, size: GIB, grow: false },
    ])
  })

  it.each([
    ['esp is missing: Give a size', 'state = "4G"\n'],
    ['state = "4X": Give a size', 'esp = "512M"\nstate = "4X"\n'],
    ['unknown key stat; did you mean state?', `stat = "4G"\n${HEAD}`],
    ['its first partition is for no image', HEAD],
    ['partition 1: unknown key sise; did you mean size?', `${HEAD}${ROOT}sise = "1G"\n`],
    ['partition 1: image is the name of an image', `${HEAD}[[partition]]\nimage = 1\ntype = "root"\nsize = "1G"\n`],
    ['partition 1: give it a label', `${HEAD}[[partition]]\ntype = "root"\nsize = "1G"\n`],
    ['partition 1: system is true or false', `${HEAD}${ROOT}system = 1\n`],
    ['uuid = 7 is no GUID', `uuid = 7\n${HEAD}${ROOT}`],
    [
      'partition 1: type is one of root, linux, windows, esp,',
      `${HEAD}${ROOT.replace('"root"\nsize', '"ext4"\nsize')}`,
    ],
    ['partition 1: grow is true or false', `${HEAD}${ROOT}grow = "yes"\n`],
    ['partition 1: uuid = "1" is no GUID', `${HEAD}${ROOT}uuid = "1"\n`],
    ['partition 1: give it a label', `${HEAD}${ROOT}label = "${'x'.repeat(37)}"\n`],
    ['two partitions have the image root', `${HEAD}${ROOT}${ROOT}`],
    ['[[partition]]', `${HEAD}[partition]\nimage = "root"\n`],
    ['line 2: unspecified values', 'esp = "1G"\nstate =\n'],
    ['line 4: unterminated table-key', `${HEAD}[[partition\n`],
  ])('is refused with a sentence: %s', async (why, text) => {
    const refused = read(text)
    await expect(refused).rejects.toMatchObject({ code: 'LAYOUT_INVALID', exitCode: 2 })
    await expect(refused).rejects.toThrow(`layout.toml: ${why.startsWith('[[') ? 'write each partition' : ''}`)
    await expect(refused).rejects.toThrow(why)
  })

  it('names a file that cannot be read', async () => {
    const path = join(await temporaryDirectory(), 'none.toml')
    await expect(readLayoutFile(path)).rejects.toThrow(`${path} cannot be read (ENOENT)`)
  })
})
