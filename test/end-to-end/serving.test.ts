import { readdir, readFile, readlink } from 'node:fs/promises'
import { getPriority } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent, type MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 48
const RATE = 1_000_000

interface Receipt extends MeshEvent {
  readonly verified: boolean
  readonly seconds: number
  readonly bytes: { readonly received: number }
  readonly peers: { readonly name: string; readonly blocks: number }[]
}

interface Serving {
  readonly bytes: number
  readonly clients: number
  readonly inUse: boolean
}

/** Paths that a process has open for writing. */
async function openForWriting(pid: number): Promise<string[]> {
  const paths: string[] = []
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    const [path, info] = await Promise.all([
      readlink(`/proc/${pid}/fd/${fd}`),
      readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8'),
    ]).catch(() => ['', ''])
    // O_WRONLY is 1, O_RDWR is 2.
    if ((Number.parseInt(/flags:\s*(\d+)/.exec(info)?.[1] ?? '0', 8) & 3) !== 0) paths.push(path)
  }
  return paths
}

describe('serving others', () => {
  let lab: Lab
  let image: Buffer
  const random = new Random(testSeed('serving'))

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    const token = await lab.invite('master')
    for (const machine of ['m1', 'm2']) await joinMachine(lab, machine, image, token)
  })
  afterAll(() => lab.close())

  const serving = async (machine: string): Promise<Serving> =>
    (await lab.ok(machine, ['status'])).serving as unknown as Serving
  const saved = async (machine: string): Promise<unknown> =>
    (JSON.parse(await readFile(lab.path(machine, 'machine.json'), 'utf8')) as { serving?: unknown }).serving
  const seedAgain = async (...args: string[]): Promise<MeshProcess> => {
    await lab.stop('master')
    const master = await lab.serve('master', ['seed', lab.path('model.img'), ...args])
    await master.event('serving')
    return master
  }

  it('goes on after a restore until the others are done, without holding the disk open for writing', async () => {
    // The other one would need 25 s for all of its disk, had it nobody but the master.
    const master = await seedAgain('--max-upload', '1Mbit')
    await dirty(lab.path('m2.img'), Array(BLOCKS).keys(), random)
    const second = await lab.start('m2', ['restore'])
    await second.when(({ event, name, up }) => event === 'peer' && name === 'master' && up === true)
    const first = await lab.start('m1', ['restore', '--linger', '10m'])
    const receipt = (await first.event('receipt')) as Receipt
    expect(receipt.verified).toBe(true)
    expect((await readFile(lab.path('m1.img'))).equals(image)).toBe(true)
    await first.when(({ text }) => /serving the others/.test(String(text)))
    expect(await openForWriting(first.child.pid!)).not.toContain(lab.path('m1.img'))

    await second.when(({ event, name, up }) => event === 'peer' && name === 'm1' && up === true)
    await master.stop('SIGKILL')
    const { code, result, stderr } = await second.exited
    expect(code, stderr).toBe(EXIT.ok)
    const fromFirst = (result as Receipt).peers.find(({ name }) => name === 'm1')
    expect(fromFirst?.blocks).toBeGreaterThan(0)
    expect((await readFile(lab.path('m2.img'))).equals(image)).toBe(true)

    const outcome = await first.exited
    expect(outcome.code).toBe(EXIT.ok)
    expect(outcome.result).toEqual(receipt)
  })

  it('ends at once when it is told to, and that is no failure; also when nothing had to be restored', async () => {
    const first = await lab.start('m1', ['restore', '--linger'])
    await first.when(({ text }) => /serving the others .* 60 s at most/.test(String(text)))
    const outcome = await first.stop()
    expect(outcome.code).toBe(EXIT.ok)
    expect(outcome.result).toMatchObject({ event: 'receipt', verified: true })
  })

  it('sends no faster than --max-upload, which is remembered until it is taken back', async () => {
    await seedAgain('--max-upload', '8Mbit', '--max-cpu', '100%', '--max-peers', '3')
    expect(await saved('master')).toEqual({ maxUpload: RATE, maxCpu: 1, maxPeers: 3 })
    await dirty(lab.path('m1.img'), Array(BLOCKS).keys(), random)
    const receipt = (await lab.ok('m1', ['restore'])) as Receipt
    expect(receipt.bytes.received).toBeGreaterThanOrEqual(BLOCKS * BLOCK)
    // Without what a burst lets through, and the last answer.
    expect(receipt.seconds).toBeGreaterThan(((receipt.bytes.received - 0.1 * RATE - BLOCK) / RATE) * 0.95)
    expect((await readFile(lab.path('m1.img'))).equals(image)).toBe(true)
    expect((await serving('master')).bytes).toBeGreaterThanOrEqual(receipt.bytes.received)
    await seedAgain('--max-upload', 'none', '--max-cpu', 'none')
    expect(await saved('master')).toEqual({ maxPeers: 3 })
  })

  it('steps back behind other work, and notices that somebody uses the machine', async () => {
    const byDefault = await seedAgain()
    expect(getPriority(byDefault.child.pid!)).toBe(Math.max(10, getPriority()))
    const asTold = await seedAgain('--nice', '19', '--in-use-check', 'echo pupil tty7; false')
    expect(getPriority(asTold.child.pid!)).toBe(19)
    while (!(await serving('master')).inUse) await sleep(20)
    expect((await lab.run('master', ['status'])).code).toBe(EXIT.ok)
    const broken = await seedAgain('--in-use-check', 'no-such-program-here')
    await broken.when(({ event, text }) => event === 'warning' && /no-such-program-here/.test(String(text)))
    expect((await serving('master')).inUse).toBe(false)
    await seedAgain('--in-use-check', 'none')
    expect(await saved('master')).toMatchObject({ nice: 19, inUseCheck: '' })
  })

  it('says what is wrong with an option, and keeps nothing of it', async () => {
    const wrong: [string, string, RegExp][] = [
      ['--max-upload', '50', /50Mbit|20Mbit/],
      ['--max-upload', '0.5Mbit', /at least 1000kbit/],
      ['--max-upload', '-5Mbit', /rate such as/],
      ['--max-cpu', '0.5', /such as 50%/],
      ['--max-cpu', '0%', /from 1% to 100%/],
      ['--max-cpu', '101%', /from 1% to 100%/],
      ['--max-peers', '0', /from 1 to/],
      ['--nice', '20', /from 0/],
      ['--nice', '-5', /from 0/],
    ]
    for (const [option, value, message] of wrong) {
      const outcome = await lab.run('m2', ['up', `${option}=${value}`])
      expect(outcome.code, `${option} ${value}`).toBe(EXIT.usage)
      expect(outcome.result).toMatchObject({ event: 'error', code: 'USAGE' })
      expect(outcome.stderr).toMatch(message)
    }
    const lingering = await lab.run('m2', ['restore', '--linger=soon'])
    expect(lingering.code).toBe(EXIT.usage)
    expect(lingering.stderr).toMatch(/Give a time such as/)
    expect(await saved('m2')).toBeUndefined()
  })
})
