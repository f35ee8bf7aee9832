import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const MIB = 1024 ** 2

describe('the layout of a site’s disks', () => {
  const random = new Random(testSeed('layout'))
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
    await startMaster(lab, (2 * MIB) / BLOCK, random)
  })
  afterAll(() => lab.close())

  const set = async (image: string, size: string) => {
    const partition = `[[partition]]\nimage = "${image}"\ntype = "root"\nsize = "${size}"\ngrow = true\n`
    await writeFile(lab.path('layout.toml'), `esp = "256M"\nstate = "64M"\n${partition}`)
    return lab.run('master', ['layout', 'set', lab.path('layout.toml')])
  }

  it('is signed by the running master, if its images are there and fit, and shown', async () => {
    const none = await lab.run('master', ['layout', 'show'])
    expect([none.result?.code, none.code]).toEqual(['LAYOUT_MISSING', EXIT.trust])
    const image = String((await lab.ok('master', ['status'])).image)
    const small = await set(image, '1M')
    expect([small.result?.code, small.code]).toEqual(['LAYOUT_INVALID', EXIT.usage])
    expect(small.stderr).toContain(`image ${image} release 1 needs ${2 * MIB}`)
    const other = await set('other', '2M')
    expect([other.result?.code, other.code]).toEqual(['IMAGE_UNKNOWN', EXIT.trust])
    expect(await set(image, '2M')).toMatchObject({ code: 0, result: { event: 'layout-set' } })
    expect(await lab.ok('master', ['layout', 'show'])).toMatchObject({
      event: 'layout',
      esp: 256 * MIB,
      partitions: [{ image, label: image, size: 2 * MIB, grow: true }],
    })
  })
})
