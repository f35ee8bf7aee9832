import { cp, readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent, type Outcome } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { hasTool, runTool } from '../../tools/lab/run-tool.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'

const MIB = 1024 * 1024
const SIZE = 8 * MIB
const usable = await hasTool('mke2fs')
if (!usable) console.warn('SKIPPED: file systems need the Debian package e2fsprogs')

describe.skipIf(!usable)('a release that may be a mistake', () => {
  const random = new Random(81)
  let lab: Lab
  let model: string

  beforeAll(async () => {
    lab = await Lab.open()
    model = lab.path('model.img')
    await fileSystem(model, SIZE)
    const first = await seed()
    expect(first.result).toMatchObject({ event: 'published', release: 1 })
    expect(changeIn(first)).toMatchObject({ release: 1, sizeBefore: null, blocks: null, content: 'ext4' })
  })
  afterAll(() => lab.close())

  /** An ext4 whose files fill most of it. */
  async function fileSystem(path: string, size: number): Promise<void> {
    const files = lab.path('files')
    await runTool('mkdir', ['-p', files])
    await writeFile(`${files}/content`, random.bytes(size - 2 * MIB))
    await writeFile(path, '')
    await truncate(path, size)
    await runTool('mke2fs', ['-q', '-F', '-t', 'ext4', '-m', '0', '-d', files, path])
  }

  const seed = (...args: string[]): Promise<Outcome> => lab.run('master', ['seed', model, '--once', ...args])
  const changeIn = ({ events }: Outcome): unknown => events.find(({ event }) => event === 'change')?.change
  const warnings = ({ events }: Outcome): string =>
    events.flatMap((event: MeshEvent) => (event.event === 'warning' ? [String(event.text)] : [])).join('\n')

  async function refused(reasons: readonly RegExp[]): Promise<void> {
    const dry = await seed('--dry-run', '--force')
    expect(dry.result, dry.stderr).toMatchObject({ event: 'would-publish', unchanged: false })
    const outcome = await seed()
    expect(outcome.result, outcome.stderr).toMatchObject({ event: 'error', code: 'PUBLISH_DOUBTFUL' })
    expect(outcome.code).toBe(EXIT.doubtful)
    const { reasons: found } = outcome.result!.detail as { reasons: string[] }
    expect(found).toEqual(reasons.map((reason) => expect.stringMatching(reason)))
    for (const reason of found) expect(outcome.stderr).toContain(reason)
    expect(outcome.stderr).toMatch(/--force publishes it all the same/)
    expect((await lab.ok('master', ['releases'])).releases).toHaveLength(1)
  }

  it('an empty disk is refused, with every reason at once', async () => {
    const before = await readFile(model)
    await writeFile(model, Buffer.alloc(SIZE))
    await refused([
      /^it holds no file system or partition table that is known, and release 1 holds ext4$/,
      /^\d+ of \d+ blocks with content of release 1 \(100 %\) become zeros, more than half$/,
      /^\d+ of 128 blocks \(\d+ %\) change, more than half$/,
    ])
    await writeFile(model, before)
  })

  it('another partition is refused: other size, other blocks', async () => {
    const before = await readFile(model)
    await fileSystem(model, SIZE - 2 * MIB)
    await refused([
      /^it has 6291456 bytes, and release 1 has 8388608$/,
      /^\d+ of 96 blocks \(\d+ %\) change, more than half$/,
    ])
    await writeFile(model, before)
  })

  it('a change of less than half is published, and told before', async () => {
    await dirty(model, [100, 101], random)
    const dry = await seed('--dry-run')
    expect(dry.result).toMatchObject({ event: 'would-publish', release: 2, unchanged: false })
    const change = { release: 2, size: SIZE, sizeBefore: SIZE, content: 'ext4', contentBefore: 'ext4' }
    expect(changeIn(dry)).toMatchObject({ ...change, blocks: { total: 128, changed: 2, zeroed: 0 } })
    expect((await lab.ok('master', ['releases'])).releases).toHaveLength(1)
    const outcome = await seed('--copy')
    expect(outcome.result).toMatchObject({ event: 'published', release: 2 })
    expect(changeIn(outcome)).toEqual(changeIn(dry))
    expect(await readFile(lab.path('master', 'copies', 'model.img'))).toEqual(await readFile(model))
    expect((await seed('--dry-run')).result).toMatchObject({ release: 2, unchanged: true })
  })

  it('--force publishes, and says in spite of what; a refused copy leaves the one before', async () => {
    const before = await readFile(model)
    await writeFile(model, random.bytes(SIZE))
    const refusedCopy = await seed('--copy')
    expect(refusedCopy.result).toMatchObject({ code: 'PUBLISH_DOUBTFUL' })
    expect(await readdir(lab.path('master', 'copies'))).toEqual(['model.img'])
    expect(await readFile(lab.path('master', 'copies', 'model.img'))).toEqual(before)
    const forced = await seed('--force')
    expect(forced.result).toMatchObject({ event: 'published', release: 3 })
    expect(warnings(forced)).toMatch(/release 3 of model is published because of --force, although: \(1\) it holds no/)
    // What was found is remembered with the release: noise after noise is no loss.
    await dirty(model, [1], random)
    expect((await seed()).result).toMatchObject({ event: 'published', release: 4 })
  })

  it('a rollback says what it changes, and refuses what would be lost', async () => {
    const master = await lab.serve('master', ['up'])
    const dry = await lab.ok('master', ['rollback', '2', '--dry-run', '--force'])
    expect(dry).toMatchObject({ event: 'would-roll-back', release: 5, change: { blocks: { total: 128 } } })
    await master.stop()
    // Release 5 is shorter: a rollback to any other has another size.
    await truncate(model, SIZE - BLOCK)
    expect((await seed('--force')).result).toMatchObject({ release: 5 })
    await lab.serve('master', ['up'])
    const outcome = await lab.run('master', ['rollback', '4'])
    expect([outcome.code, outcome.result]).toEqual([
      EXIT.doubtful,
      expect.objectContaining({ code: 'PUBLISH_DOUBTFUL', message: expect.stringMatching(/it has 8388608 bytes/) }),
    ])
    const forced = await lab.ok('master', ['rollback', '4', '--force'])
    expect(forced).toMatchObject({
      event: 'rolled-back',
      release: 6,
      warnings: [expect.stringMatching(/because of --force/)],
    })
    await lab.stop('master')
  })

  it('a disk whose last restore did not verify is refused until it has, or by force', async () => {
    const other = await Lab.open()
    try {
      const disk = other.path('disk.img')
      await writeFile(disk, random.bytes(40 * BLOCK))
      const publish = (...args: string[]) => other.run('master', ['seed', disk, '--once', ...args])
      expect((await publish()).result).toMatchObject({ release: 1 })
      await dirty(disk, [3], random)
      // Nobody has the block: the restore fails.
      const restored = await other.run('master', ['restore', '--wait', '1s'])
      expect(restored.code).not.toBe(0)
      expect((await publish()).result).toMatchObject({
        code: 'PUBLISH_DOUBTFUL',
        message: expect.stringMatching(/the last restore of this disk, at .*, did not end verified: /),
      })
      // Another disk is none of its business.
      await cp(disk, other.path('elsewhere.img'))
      const elsewhere = await other.run('master', ['seed', other.path('elsewhere.img'), '--image', 'disk', '--dry-run'])
      expect(elsewhere.result).toMatchObject({ event: 'would-publish' })
      expect((await publish('--force')).result).toMatchObject({ release: 2 })
      await dirty(disk, [4], random)
      expect((await publish()).result).toMatchObject({ release: 3 })
    } finally {
      await other.close()
    }
  })

  it('an image file that is cut while it is served is offered no more, and comes back', async () => {
    const other = await Lab.open()
    try {
      const disk = other.path('disk.img')
      const content = random.bytes(8 * BLOCK)
      await writeFile(disk, content)
      const master = await other.serve('master', ['seed', disk])
      await master.event('serving')
      await truncate(disk, 3 * BLOCK)
      const warned = await master.event('warning')
      expect(warned.text).toMatch(/has become shorter than the 524288 bytes of disk: nothing of it is offered/)
      expect(await other.ok('master', ['status'])).toMatchObject({
        blocks: { held: 0, total: 8 },
      })
      await writeFile(disk, content)
      const held = async (): Promise<unknown> =>
        ((await other.ok('master', ['status'])).blocks as { held: number }).held
      await expect.poll(held, { timeout: 60_000, interval: 500 }).toBe(8)
    } finally {
      await other.close()
    }
  })

  it('a dry run before there is a site makes none', async () => {
    const outcome = await lab.run('nobody', ['seed', model, '--dry-run'])
    expect(outcome.result).toMatchObject({ event: 'would-publish', image: 'model', release: 1 })
    expect(await readdir(lab.dir)).not.toContain('nobody')
  })
})

describe('a master with a wrong clock', () => {
  const DAY_MS = 24 * 3600 * 1000
  const random = new Random(82)
  let lab: Lab
  let disk: string

  beforeAll(async () => {
    lab = await Lab.open()
    disk = lab.path('model.img')
    const image = await startMaster(lab, 40, random)
    await joinMachine(lab, 'pc1', image, await lab.invite('master'))
    await lab.ok('pc1', ['restore'])
    await lab.stop('master')
    await writeFile(
      lab.path('clock.cjs'),
      `const Real = Date
       const ahead = Number(process.env.CLOCK_AHEAD_MS)
       globalThis.Date = class extends Real {
         constructor(...parts) { super(...(parts.length === 0 ? [Real.now() + ahead] : parts)) }
         static now() { return Real.now() + ahead }
       }`,
    )
  })
  afterAll(() => lab.close())

  /** Publishes a changed disk by a clock that is so many days ahead. */
  async function seed(days: number, ...args: string[]): Promise<Outcome> {
    await dirty(disk, [2], random)
    const options = `${process.env.NODE_OPTIONS ?? ''} --require ${lab.path('clock.cjs')}`
    const env = days === 0 ? {} : { NODE_OPTIONS: options, CLOCK_AHEAD_MS: String(days * DAY_MS) }
    return lab.run('master', ['seed', disk, '--once', ...args], env)
  }

  const refusal = (message: RegExp) => ({ code: 'PUBLISH_DOUBTFUL', message: expect.stringMatching(message) })

  it('is refused by what members say, and lets the right clock publish again', async () => {
    await lab.serve('pc1', ['up'])
    for (const days of [20, -20])
      expect((await seed(days)).result).toMatchObject(refusal(/the clocks of 1 members that are here say/))
    expect((await seed(20, '--force')).result).toMatchObject({ event: 'published', release: 2 })
    // The member says that this clock is right, whatever was signed.
    expect((await seed(0)).result).toMatchObject({ event: 'published', release: 3 })
    await lab.stop('pc1')
  })

  it('is found by what was signed if nobody is there; --force is the way out, and machines follow', async () => {
    expect((await seed(300, '--force')).result).toMatchObject({ event: 'published', release: 4 })
    const outcome = await seed(0)
    expect(outcome.result).toMatchObject(
      refusal(/release 4 was signed at .*: this clock is behind, or that one was ahead/),
    )
    expect(outcome.stderr).not.toMatch(/timedatectl/)
    expect((await seed(0, '--force')).result).toMatchObject({ event: 'published', release: 5 })
    expect((await seed(0)).result).toMatchObject({ event: 'published', release: 6 })
    await lab.serve('master', ['up'])
    await dirty(lab.path('pc1.img'), [7], random)
    expect(await lab.ok('pc1', ['restore'])).toMatchObject({ verified: true, release: 6 })
    expect(await readFile(lab.path('pc1.img'))).toEqual(await readFile(disk))
  })
})
