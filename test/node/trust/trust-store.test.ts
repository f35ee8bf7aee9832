import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import type { FetchMetadata } from '../../../node/trust/metadata-update.ts'
import { SiteSigner } from '../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'
import { record } from './record.ts'

const MEMBER = {
  id: 'id-1',
  name: 'pc1',
  role: 'machine',
  site: 'lab',
  group: 'lab',
  mac: [],
  added: '2026-01-01T00:00:00.000Z',
} as const

describe('TrustStore', () => {
  const dir = useTempDir()
  let n = 0
  let here: string
  let master: { signer: SiteSigner; trust: TrustStore }
  let machine: TrustStore
  const fromMaster: FetchMetadata = (name) => master.trust.file(name)

  beforeEach(async () => {
    here = dir(`case-${n++}`)
    master = await makeSite(here)
    await master.signer.publish(makeManifest())
    machine = await TrustStore.join(join(here, 'machine'), master.trust.siteId, fromMaster)
  })

  it('takes what the site signs, and only new things change it', async () => {
    expect(machine.view().newest('win')?.release).toBe(1)
    expect(await machine.refresh(fromMaster)).toBe(false)
    await master.signer.addMember(MEMBER)
    await master.signer.publish(makeManifest({ release: 2, label: 'new' }))
    await master.signer.publish(makeManifest({ image: 'linux' }))
    let changes = 0
    machine.onChange(() => changes++)
    expect(await machine.refresh(fromMaster)).toBe(true)
    expect(changes).toBe(1)
    expect(machine.view().images).toEqual(['linux', 'win'])
    expect(machine.view().newest('win')).toMatchObject({ release: 2, label: 'new' })
    expect(machine.view().release('win', 1)?.release).toBe(1)
    expect(machine.view().memberById('id-1')).toEqual(MEMBER)
    const reopened = await TrustStore.open(join(here, 'machine'))
    expect(reopened.view().versions).toEqual(machine.view().versions)
    // A machine serves what it took: another one can join from it alone.
    const third = await TrustStore.join(join(here, 'third'), master.trust.siteId, (name) => machine.file(name))
    expect(third.view().newest('win')?.release).toBe(2)
  })

  it('follows a master whose clock was far ahead and was set right', async () => {
    const DAY_MS = 24 * 3600 * 1000
    const signerAt = (now: number): Promise<SiteSigner> =>
      SiteSigner.open({ keysDir: join(here, 'keys'), trust: master.trust, now: () => now })
    const expiresIn = (): number => (machine.view().expires - Date.now()) / DAY_MS
    const ahead = Date.now() + 300 * DAY_MS
    const early = await signerAt(ahead)
    await early.addMember(MEMBER)
    await early.publish(makeManifest({ release: 2, time: new Date(ahead).toISOString() }))
    expect(await machine.refresh(fromMaster)).toBe(true)
    expect(expiresIn()).toBeGreaterThan(300)
    const right = await signerAt(Date.now())
    await right.publish(makeManifest({ release: 3, time: new Date().toISOString() }))
    expect(await machine.refresh(fromMaster)).toBe(true)
    expect(machine.view().newest('win')?.release).toBe(3)
    expect(expiresIn()).toBeLessThan(31)
    // The member list is signed anew, too: nothing stays valid for longer than it should.
    const { members } = await machine.roles()
    expect((Date.parse(members.signed.expires) - Date.now()) / DAY_MS).toBeLessThan(366)
  })

  it('refuses a replay of older metadata and keeps what it trusts', async () => {
    const old = await record(master.trust)
    await master.signer.publish(makeManifest({ release: 2 }))
    await machine.refresh(fromMaster)
    expect(await codeOf(machine.refresh(old))).toBe('METADATA_ROLLBACK')
    const mixed: FetchMetadata = async (name) => (name === 'timestamp.json' ? fromMaster(name) : old(name))
    await master.signer.addMember(MEMBER)
    expect(await codeOf(machine.refresh(mixed))).toBe('METADATA_INVALID')
    expect(machine.view().newest('win')?.release).toBe(2)
    expect((await readdir(join(here, 'machine'))).filter((name) => name.startsWith('gen-'))).toHaveLength(1)
  })

  it('refuses another site, forged and damaged files', async () => {
    const other = await makeSite(join(here, 'other'))
    await other.signer.publish(makeManifest({ release: 9 }))
    await other.signer.addMember(MEMBER)
    expect(await codeOf(machine.refresh((name) => other.trust.file(name)))).toBe('METADATA_INVALID')
    const foreign = TrustStore.join(join(here, 'new'), master.trust.siteId, (name) => other.trust.file(name))
    expect(await codeOf(foreign)).toBe('METADATA_INVALID')

    await master.signer.addMember(MEMBER)
    await master.signer.publish(makeManifest({ release: 2 }))
    for (const victim of ['timestamp.json', 'snapshot.json', 'targets.json', 'members.json', 'targets/']) {
      const damaged = (change: (bytes: Buffer) => Uint8Array | undefined): FetchMetadata => {
        return async (name) => {
          const bytes = await fromMaster(name)
          return bytes !== undefined && (name.endsWith(victim) || (victim === 'targets/' && name.startsWith(victim)))
            ? change(Buffer.from(bytes))
            : bytes
        }
      }
      const changes = [
        (bytes: Buffer) => bytes.subarray(0, -5),
        (bytes: Buffer) =>
          Buffer.from(
            bytes
              .toString()
              .replace(/"version":(\d)/, '"version":9')
              .replace('pc1', 'pc2')
              .replace('win', 'wim'),
          ),
        () => Buffer.alloc(2 * 1024 * 1024, 32),
        () => Buffer.from('[]'),
        () => undefined,
      ]
      for (const change of changes)
        expect(await codeOf(machine.refresh(damaged(change))), victim).toBe('METADATA_INVALID')
    }
    expect(machine.view().newest('win')?.release).toBe(1)
    expect(await machine.refresh(fromMaster)).toBe(true)
  })

  it('keeps nothing of a join that fails, and can join afterwards', async () => {
    const directory = join(here, 'new')
    const without = (victim: string): FetchMetadata => {
      return async (name) => (name.includes(victim) ? undefined : fromMaster(name))
    }
    for (const victim of ['1.root', 'timestamp', 'snapshot', '.targets', 'members', 'targets/']) {
      expect(await codeOf(TrustStore.join(directory, master.trust.siteId, without(victim))), victim).toBe(
        'METADATA_INVALID',
      )
      expect(await readdir(directory), victim).toEqual([])
    }
    expect(await codeOf(TrustStore.open(directory))).toBe('STATE_CORRUPT')
    const other = await makeSite(join(here, 'other'))
    expect(await codeOf(TrustStore.join(directory, other.trust.siteId, fromMaster))).toBe('METADATA_INVALID')
    expect((await TrustStore.join(directory, master.trust.siteId, fromMaster)).view().newest('win')?.release).toBe(1)
  })

  it('passes on what hindered the peer, whichever file it was at', async () => {
    await master.signer.addMember(MEMBER)
    for (const victim of ['2.root', 'timestamp', 'snapshot', 'members.json', 'targets/']) {
      const silent: FetchMetadata = async (name) => {
        if (name.includes(victim)) throw new MeshError('REQUEST_TIMEOUT', `no ${name}`)
        return fromMaster(name)
      }
      expect(await codeOf(machine.refresh(silent)), victim).toBe('REQUEST_TIMEOUT')
    }
    expect(await machine.refresh(fromMaster)).toBe(true)
  })

  it('starts again when the peer itself moves to newer metadata meanwhile', async () => {
    await master.signer.addMember(MEMBER)
    let moves = 2
    const moving: FetchMetadata = async (name) => {
      if (name.endsWith('.snapshot.json') && moves-- > 0)
        await master.signer.addMember({ ...MEMBER, name: `pc${moves + 5}` })
      return fromMaster(name)
    }
    expect(await machine.refresh(moving)).toBe(true)
    expect(machine.view().memberById('id-1')?.name).toBe('pc5')
    // But not forever.
    await master.signer.addMember({ ...MEMBER, name: 'pc7' })
    moves = 100
    expect(await codeOf(machine.refresh(moving))).toBe('METADATA_INVALID')
  })

  it('is not held up by a peer that takes its time', async () => {
    let answer: (() => void) | undefined
    const asked = new Promise<void>((resolve) => {
      const waiting = master.trust.refresh(async () => {
        resolve()
        await new Promise<void>((go) => {
          answer = go
        })
        return undefined
      })
      waiting.catch(() => undefined)
    })
    await asked
    await master.signer.addMember(MEMBER)
    expect(master.trust.view().memberById('id-1')).toEqual(MEMBER)
    answer?.()
  })

  it('serves without a gap while it changes', async () => {
    let missing = 0
    let busy = true
    const reading = (async () => {
      while (busy) {
        if ((await fromMaster('timestamp.json')) === undefined) missing++
        await new Promise((resolve) => setImmediate(resolve))
      }
    })()
    for (let release = 2; release < 8; release++) await master.signer.publish(makeManifest({ release }))
    busy = false
    await reading
    expect(missing).toBe(0)
  })

  it('can be opened by a reader while another process changes it', async () => {
    let busy = true
    const reading = (async () => {
      let opened = 0
      for (; busy; opened++) await TrustStore.open(join(here, 'trust'))
      return opened
    })()
    for (let release = 2; release < 10; release++) await master.signer.publish(makeManifest({ release }))
    busy = false
    expect(await reading).toBeGreaterThan(0)
  })

  it('lets a master that was put back from an older copy catch up from any machine, and go on', async () => {
    await cp(join(here, 'trust'), join(here, 'copy'), { recursive: true })
    await master.signer.publish(makeManifest({ release: 2 }))
    await master.signer.addMember(MEMBER)
    await machine.refresh(fromMaster)
    const trust = await TrustStore.open(join(here, 'copy'))
    const signer = await SiteSigner.open({ keysDir: join(here, 'keys'), trust })
    expect(await trust.refresh((name) => machine.file(name))).toBe(true)
    await signer.publish(makeManifest({ release: 3 }))
    expect(await machine.refresh((name) => trust.file(name))).toBe(true)
    expect(machine.view().newest('win')?.release).toBe(3)
    expect(machine.view().memberById('id-1')).toEqual(MEMBER)
  })

  it('refuses what such a master signs without catching up', async () => {
    await cp(join(here, 'trust'), join(here, 'copy'), { recursive: true })
    await master.signer.publish(makeManifest({ release: 2 }))
    await machine.refresh(fromMaster)
    const trust = await TrustStore.open(join(here, 'copy'))
    const signer = await SiteSigner.open({ keysDir: join(here, 'keys'), trust })
    for (let i = 0; i < 3; i++) await signer.addMember({ ...MEMBER, id: `id-${i}`, name: `pc${i}` })
    expect(await codeOf(machine.refresh((name) => trust.file(name)))).toBe('METADATA_ROLLBACK')
  })

  it('keeps no target that nothing names', async () => {
    for (let i = 0; i < 5; i++) await master.signer.addMember({ ...MEMBER, id: `id-${i}`, name: `pc${i}` })
    await machine.refresh(fromMaster)
    for (const directory of [join(here, 'trust'), join(here, 'machine')]) {
      const generation = join(directory, await readFile(join(directory, 'CURRENT'), 'utf8'))
      expect(await readdir(join(generation, 'targets'))).toHaveLength(2)
    }
  })

  it('notices damage of any of its own files and names it', async () => {
    await master.signer.addMember(MEMBER)
    await machine.refresh(fromMaster)
    const directory = join(here, 'machine')
    const generation = join(directory, await readFile(join(directory, 'CURRENT'), 'utf8'))
    const files = (await readdir(generation, { recursive: true, withFileTypes: true })).filter((entry) =>
      entry.isFile(),
    )
    expect(files).toHaveLength(8)
    for (const path of files.map((entry) => join(entry.parentPath, entry.name))) {
      const bytes = await readFile(path)
      const flipped = Buffer.from(bytes)
      flipped[flipped.length >> 1] = (flipped[flipped.length >> 1] ?? 0) ^ 1
      for (const damage of [flipped, bytes.subarray(0, -1), Buffer.alloc(0), undefined]) {
        if (damage === undefined) await rm(path)
        else await writeFile(path, damage)
        const error = await TrustStore.open(directory).catch((reason: unknown) => reason)
        expect(error).toMatchObject({ code: 'STATE_CORRUPT', detail: { path } })
        expect(String(error)).toContain(path)
      }
      await writeFile(path, bytes)
    }
    for (const text of ['', 'gen-000099', '../machine', 'gen-000001\n']) {
      await writeFile(join(directory, 'CURRENT'), text)
      expect(await codeOf(TrustStore.open(directory)), text).toBe('STATE_CORRUPT')
    }
    await writeFile(join(directory, 'CURRENT'), generation.slice(generation.lastIndexOf('/') + 1))
    expect(await codeOf(TrustStore.open(directory))).toBe('OK')
  })

  it('serves only the files of the protocol', async () => {
    for (const name of [
      '../CURRENT',
      'root.json',
      '99.targets.json',
      'targets/../timestamp.json',
      'targets/',
      '/etc/passwd',
      `${'9'.repeat(5000)}.root.json`,
      '',
    ]) {
      expect(await machine.file(name)).toBeUndefined()
    }
    expect(await machine.file('1.root.json')).toBeDefined()
  })
})
