import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent, type Outcome } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, startMaster } from '../support/fixtures.ts'

describe('the configuration file of a machine', () => {
  let lab: Lab
  let image: Buffer
  let file: string

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, 16, new Random(41))
    file = lab.path('mesh.toml')
    for (const disk of ['m1.img', 'other.img']) await writeFile(lab.path(disk), new Uint8Array(image.byteLength))
  })
  afterAll(() => lab.close())

  const configure = (text: string): Promise<void> => writeFile(file, text)
  const saved = async (): Promise<{ serving?: object; disk: string }> =>
    JSON.parse(await readFile(lab.path('m1', 'machine.json'), 'utf8'))
  const settings = async (args: string[] = []): Promise<Record<string, [unknown, unknown]>> => {
    const shown = await lab.ok('m1', ['config', 'show', ...args])
    const list = shown.settings as { name: string; value: unknown; from: string }[]
    return Object.fromEntries(list.map(({ name, value, from }) => [name, [value, from]]))
  }
  const limit = async (): Promise<unknown> => {
    const up = await lab.serve('m1', ['up', '--config', file])
    await up.event('serving')
    await up.stop()
    return (await saved()).serving
  }

  it('makes no unit that would restore the master’s disk, which is the model', async () => {
    const { units } = await lab.ok('master', ['install', '--dry-run'])
    expect((units as { name: string }[]).map(({ name }) => name)).toEqual(['mesh-up.service'])
  })

  it('gives commands what they were not told: also what they cannot do without', async () => {
    await configure(`disk = "${lab.path('m1.img')}"\nimage = "model"\n[serving]\nmax-upload = "80Mbit"\n`)
    const token = await lab.invite('master')
    await lab.ok('m1', ['join', token, '--name', 'm1', '--config', file])
    expect((await saved()).disk).toBe(lab.path('m1.img'))
    const { machine } = await lab.ok('m1', ['config', 'show', '--config', file])
    const facts = Object.fromEntries(
      (machine as { name: string; value: string; from: string }[]).map((one) => [one.name, one]),
    )
    expect(facts).toMatchObject({
      name: { value: 'm1', from: 'machine.json' },
      role: { value: 'machine', from: 'signed list' },
      group: { value: 'lab', from: 'signed list' },
      'disk is': { value: `${lab.path('m1.img')} (file, ${image.byteLength} bytes)`, from: 'machine.json' },
    })
    expect(await lab.ok('m1', ['restore', '--config', file])).toMatchObject({ verified: true, image: 'model' })
    expect(await readFile(lab.path('m1.img'))).toEqual(image)
  })

  it('is asked each time: nothing of it is remembered, and options go before it', async () => {
    expect(await limit()).toBeUndefined()
    await lab.ok('m1', ['restore', '--config', file, '--max-upload', '40Mbit', '--max-peers', '5'])
    expect((await saved()).serving).toEqual({ maxUpload: 5_000_000, maxPeers: 5 })
    expect(await settings(['--config', file])).toMatchObject({
      'serving.max-upload': ['80Mbit', `${file}:4`],
      'serving.max-peers': ['5', 'remembered'],
      'serving.nice': ['10', 'default'],
      disk: [lab.path('m1.img'), `${file}:1`],
      mdns: ['false', '--no-mdns'],
      state: [lab.path('m1'), '--state'],
      site: ['lab', 'remembered'],
    })
    expect(await settings()).toMatchObject({
      'serving.max-upload': ['40Mbit', 'remembered'],
      disk: [lab.path('m1.img'), 'remembered'],
    })
    expect(await limit()).toEqual({ maxUpload: 5_000_000, maxPeers: 5 })
  })

  it('holds while the command runs', async () => {
    await configure('[serving]\nmax-upload = "1Mbit"\nnice = 17\n')
    const up = await lab.serve('m1', ['up', '--config', file])
    await up.event('serving')
    const priority = (await readFile(`/proc/${up.child.pid}/stat`, 'utf8')).split(' ')[18]
    expect(Number(priority)).toBeGreaterThanOrEqual(17)
    await up.stop()
  })

  it('names the disk that is restored, verified, monitored, and looked at, before what was remembered', async () => {
    await configure(`disk = "${lab.path('other.img')}"\n`)
    expect(await lab.ok('m1', ['restore', '--config', file])).toMatchObject({ blocks: { dirty: image.length / BLOCK } })
    expect(await readFile(lab.path('other.img'))).toEqual(image)
    expect(await lab.ok('m1', ['verify', '--config', file])).toMatchObject({ verified: true })
    expect(await lab.ok('m1', ['status', '--config', file])).toMatchObject({ disk: lab.path('other.img') })
    const monitor = await lab.start('m1', ['monitor', '--nbd', `unix:${lab.path('s')}`, '--config', file])
    expect(await monitor.event('monitoring')).toMatchObject({ disk: lab.path('other.img') })
    expect(await lab.ok('m1', ['log', 'show', '--config', file])).toMatchObject({ disk: lab.path('other.img') })
    await monitor.stop()
    await lab.ok('m1', ['log', 'forget', '--config', file])
    expect((await saved()).disk).toBe(lab.path('m1.img'))
    const own = await lab.start('m1', ['monitor', '--nbd', `unix:${lab.path('s')}`])
    expect(await own.event('monitoring')).toMatchObject({ disk: lab.path('m1.img') })
    await own.stop()
    await lab.ok('m1', ['log', 'forget'])
  })

  it('may be named by MESH_CONFIG; no command goes by a file that is wrong or missing', async () => {
    const env = { MESH_CONFIG: file }
    await configure('disk = "x"\n[serving]\nnice = 99\n')
    const expectWrong = ({ code, result, stderr }: Outcome, kind: string, message: RegExp): void => {
      expect([code, (result as MeshEvent).code], stderr).toEqual([EXIT.usage, kind])
      expect(stderr).toMatch(message)
    }
    for (const args of [['restore'], ['log', 'show'], ['config', 'check'], ['config', 'show']])
      expectWrong(
        await lab.run('m1', args, env),
        'CONFIG_INVALID',
        /mesh\.toml:1: disk.*\n.*mesh\.toml:3: serving\.nice/,
      )
    const gone = { MESH_CONFIG: lab.path('gone.toml') }
    for (const args of [['up'], ['config', 'check']])
      expectWrong(await lab.run('m1', args, gone), 'CONFIG_UNREADABLE', /gone\.toml does not exist/)
    const help = await lab.run('m1', ['up', '--help'], env)
    expect([help.code, help.stdout]).toEqual([0, expect.stringContaining('--max-upload')])
    await configure('')
    expect(await lab.ok('m1', ['config', 'check', file])).toEqual({ event: 'config-checked', file, keys: 0 })
  })
})
