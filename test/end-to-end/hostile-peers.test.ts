import { type ChildProcess, spawn } from 'node:child_process'
import { open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Shelf } from '../../node/state/shelf.ts'
import { StateDirectory } from '../../node/state/state-directory.ts'
import { isRecord } from '../../protocol/json-shape.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const EVIL = join(import.meta.dirname, '../fakes/evil-node.ts')
const BLOCKS = 160

describe('a restore among bad peers', () => {
  const random = new Random(testSeed('hostile peers'))
  let lab: Lab
  let image: Buffer
  let evil: ChildProcess | undefined

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    const token = await lab.invite('master')
    for (const machine of ['good', 'evil', 'victim']) {
      await joinMachine(lab, machine, image, token)
      await lab.ok(machine, ['restore'])
    }
  })
  afterEach(() => void evil?.kill('SIGKILL'))
  afterAll(() => lab.close())

  /** The evil member as a process; resolves when it listens. */
  async function startEvil(mode: string): Promise<void> {
    evil = spawn(process.execPath, [EVIL, lab.path('evil'), lab.address('evil') ?? '', mode], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await new Promise<void>((resolve) => evil?.stdout?.once('data', () => resolve()))
  }

  async function restoreVictim() {
    await dirty(lab.path('victim.img'), Array(BLOCKS).keys(), random)
    // It has all of this from earlier restores.
    await rm(lab.path('victim', 'stage'), { recursive: true, force: true })
    const outcome = await lab.run('victim', ['restore'])
    expect(outcome.stderr).toBe('')
    expect(outcome.code).toBe(0)
    const receipt = outcome.result as unknown as {
      verified: boolean
      blocks: { fetched: number }
      bytes: { received: number }
      peers: { name: string; bad: number; blocks: number }[]
      offenders: { name: string; wrong: number; reason: string }[]
    }
    expect(receipt.verified).toBe(true)
    expect((await readFile(lab.path('victim.img'))).equals(image)).toBe(true)
    return {
      receipt,
      warnings: outcome.events.filter((event) => event.event === 'warning').map((event) => String(event.text)),
    }
  }

  it('asks others for what a stalled peer was asked for', async () => {
    await startEvil('stall')
    const { receipt } = await restoreVictim()
    expect(receipt.peers.map(({ name }) => name)).toEqual(['master'])
  })

  it('goes on when a peer leaves in the middle', async () => {
    await startEvil('leave')
    const { receipt } = await restoreVictim()
    expect(receipt.blocks.fetched).toBe(BLOCKS)
    // Nothing is fetched twice but what was on its way.
    expect(receipt.bytes.received).toBe(BLOCKS * BLOCK)
  })

  it('fetches the hash tree again when the stored one is damaged', async () => {
    const [name = ''] = await readdir(lab.path('victim', 'trees'))
    const file = await open(lab.path('victim', 'trees', name), 'r+')
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, 70)
    buffer[0]! ^= 1
    await file.write(buffer, 0, 1, 70)
    await file.close()
    const { warnings } = await restoreVictim()
    expect(warnings.some((text) => /damaged; fetching the hash tree again/.test(text))).toBe(true)
  })

  it('refuses stale metadata from a peer that claims to have newer, and restores the newest release', async () => {
    // Publish release 2 from a second seed of the changed disk; the evil one knows nothing of it.
    const master = lab.path('model.img')
    await dirty(master, [3, 4], random)
    image = await readFile(master)
    await lab.stop('master')
    await lab.serve('master', ['seed', master])
    expect((await restoreVictim()).receipt).toMatchObject({ release: 2 })
    await startEvil('stale')
    const up = await lab.serve('victim', ['up'])
    const refused = await up.when(({ text }) => /metadata of evil is not used/.test(String(text)))
    expect(refused).toMatchObject({ event: 'warning' })
    await up.stop()
    expect((await restoreVictim()).receipt).toMatchObject({ release: 2 })
    // And it stays: the older release is not accepted from anybody any more.
    expect(await lab.ok('victim', ['status'])).toMatchObject({ release: 2 })
  })

  it('bans and names a peer that sends wrong bytes', async () => {
    await startEvil('lie')
    const { receipt, warnings } = await restoreVictim()
    const peer = receipt.peers.find(({ name }) => name === 'evil')
    expect(peer).toMatchObject({ blocks: 0 })
    expect(peer?.bad).toBeGreaterThan(0)
    expect(receipt.peers.filter(({ name }) => name !== 'evil').every(({ bad }) => bad === 0)).toBe(true)
    expect(warnings.some((text) => /evil sent wrong bytes for block \d+; it is not asked again/.test(text))).toBe(true)
    expect(receipt.blocks.fetched).toBe(BLOCKS)
    expect(receipt.offenders).toMatchObject([
      { name: 'evil', wrong: 1, reason: expect.stringMatching(/^sent wrong bytes/) },
    ])
    // The next command of the machine remembers it.
    const next = await restoreVictim()
    expect(next.receipt.peers.some(({ name }) => name === 'evil')).toBe(false)
    expect(next.receipt.offenders).toEqual([])
  })

  it('goes on without addresses and standings that are damaged, says so once, and takes them out', async () => {
    const damage = async (keys: (anything: Shelf<object>) => Promise<unknown>): Promise<void> => {
      const state = await StateDirectory.open(lab.path('victim'), { create: false })
      for (const name of ['addresses', 'conduct'])
        await keys(state.shelf(name, { name, shape: isRecord, fault: 'STATE_CORRUPT' }))
      await state.close()
    }
    await damage(async (shelf) => {
      for (const id of ['one', 'two']) await shelf.put(id, { nonsense: 1 })
    })
    const { warnings } = await restoreVictim()
    expect(warnings.filter((text) => text.includes('mesh goes on without it'))).toEqual([
      'how a peer behaved is damaged: at is missing or wrong; mesh goes on without it',
      'the addresses of a peer is damaged: it is something else; mesh goes on without it',
    ])
    await damage(async (shelf) => expect((await shelf.keys()).filter((id) => ['one', 'two'].includes(id))).toEqual([]))
  })
})
