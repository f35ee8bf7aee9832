import { describe, expect, it } from 'vitest'
import { MetadataSync, rootsOf, serveMetadata } from '../../../../node/agent/mesh/metadata-sync.ts'
import { RETRY_MIN_MS } from '../../../../node/exchange/limits.ts'
import type { FrameStream } from '../../../../node/net/frame-stream.ts'
import { TrustStore } from '../../../../node/trust/trust-store.ts'
import { streamPair } from '../../../fakes/frame-stream-pair.ts'
import { makeManifest, makeSite } from '../../../support/site.ts'
import { useTempDir } from '../../../support/temp-dir.ts'

describe('MetadataSync', () => {
  const dir = useTempDir()

  it('gives strangers root metadata, and nothing else', async () => {
    const { trust } = await makeSite(dir('roots'))
    const roots = rootsOf(trust)
    expect(await roots.file('1.root.json')).toEqual(await trust.file('1.root.json'))
    for (const name of [
      'timestamp.json',
      '1.snapshot.json',
      '1.targets.json',
      '1.members.json',
      'root.json',
      '2.root.json',
    ])
      expect(await roots.file(name), name).toBeUndefined()
  })

  it('takes newer metadata from whoever has it, and asks a peer that only claims it ever less often', async () => {
    const { signer, trust } = await makeSite(dir())
    const boaster = await TrustStore.join(dir('boaster'), trust.siteId, (name) => trust.file(name))
    const machine = await TrustStore.join(dir('machine'), trust.siteId, (name) => trust.file(name))
    await signer.publish(makeManifest())
    const asked: string[] = []
    let now = 0
    const sync = new MetadataSync({
      trust: machine,
      open: async (peerId): Promise<FrameStream> => {
        asked.push(peerId)
        const [client, server] = streamPair('machine', peerId)
        serveMetadata(server, peerId === 'boaster' ? boaster : trust).catch(() => undefined)
        return client
      },
      warn: () => undefined,
      nameOf: (id) => id,
      now: () => now,
    })
    const claim = { root: 1, timestamp: 1_000_000 }
    for (; now < 60_000; now += 100) await sync.heard('boaster', claim)
    expect(asked.length).toBeGreaterThan(1)
    expect(asked.length).toBeLessThan(12)
    asked.length = 0
    await Promise.all([sync.heard('boaster', claim), sync.heard('honest', trust.view().versions)])
    expect(asked).toContain('honest')
    expect(machine.view().newest('win')?.release).toBe(1)
  })

  it('asks a peer that said only once, while it was doubted, what it has, when the doubt ends', async () => {
    const { signer, trust } = await makeSite(dir('doubted'))
    const machine = await TrustStore.join(dir('doubting'), trust.siteId, (name) => trust.file(name))
    const asked: number[] = []
    const sync = new MetadataSync({
      trust: machine,
      open: async (peerId): Promise<FrameStream> => {
        asked.push(performance.now())
        const [client, server] = streamPair('machine', peerId)
        serveMetadata(server, trust).catch(() => undefined)
        return client
      },
      warn: () => undefined,
      nameOf: (id) => id,
    })
    // A claim that comes to nothing: the peer is doubted for RETRY_MIN_MS.
    await sync.heard('master', { root: 1, timestamp: 1_000_000 })
    await signer.publish(makeManifest())
    await sync.heard('master', trust.view().versions)
    expect(machine.view().newest('win')).toBeUndefined()
    await expect.poll(() => machine.view().newest('win')?.release, { timeout: 60_000 }).toBe(1)
    expect(asked).toHaveLength(2)
    // Who went away is not asked, and neither is anybody after the end.
    for (const leave of [() => sync.gone('master'), () => sync.stop()]) {
      for (const timestamp of [2_000_000, 3_000_000]) await sync.heard('master', { root: 1, timestamp })
      const before = asked.length
      leave()
      await new Promise((resolve) => setTimeout(resolve, 4 * RETRY_MIN_MS))
      expect(asked).toHaveLength(before)
    }
  })

  it('asks a peer that claims nothing, when it is told to, and takes no for an answer', async () => {
    const { signer, trust } = await makeSite(dir('polled'))
    const machine = await TrustStore.join(dir('polling'), trust.siteId, (name) => trust.file(name))
    const warnings: string[] = []
    const sync = new MetadataSync({
      trust: machine,
      open: async (peerId): Promise<FrameStream> => {
        if (peerId === 'gone') throw new Error('it is gone')
        const [client, server] = streamPair('machine', peerId)
        serveMetadata(server, trust).catch(() => undefined)
        return client
      },
      warn: (text) => warnings.push(text),
      nameOf: (id) => id,
    })
    await sync.ask('gone')
    await sync.ask('silent')
    expect(machine.view().newest('win')).toBeUndefined()
    await signer.publish(makeManifest())
    await sync.ask('silent')
    expect(machine.view().newest('win')?.release).toBe(1)
    expect(warnings).toEqual([])
  })
})
