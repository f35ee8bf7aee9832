import { cp } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { MetadataSync, serveMetadata } from '../../../node/agent/mesh/metadata-sync.ts'
import { SiteSigner } from '../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { streamPair } from '../../fakes/frame-stream-pair.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const release = (number: number, fill: number) => makeManifest({ release: number, root: Buffer.alloc(32, fill) })

describe('two masters made from one copy', () => {
  const dir = useTempDir()

  /** A master, another one from its copy, and a machine of each; both masters have published a release 2 of their own. */
  async function forked(name: string) {
    const { signer, trust: made } = await makeSite(dir(name, 'a'))
    await signer.publish(release(1, 1))
    await cp(dir(name, 'a'), dir(name, 'b'), { recursive: true })
    const open = (of: string) => TrustStore.open(dir(name, of, 'trust'), { signs: true })
    const [a, b] = [await open('a'), await open('b')]
    const sign = (of: string, trust: TrustStore, over = false) =>
      SiteSigner.open({ keysDir: dir(name, of, 'keys'), trust, over })
    await (await sign('a', a)).publish(release(2, 7))
    await (await sign('b', b)).publish(release(2, 8))
    const join = (of: string, trust: TrustStore) =>
      TrustStore.join(dir(name, of), made.siteId, (file) => trust.file(file))
    return { a, b, ofA: await join('of-a', a), ofB: await join('of-b', b), sign }
  }
  const bytesOf = async (trust: TrustStore): Promise<Buffer> => Buffer.from((await trust.file('timestamp.json'))!)
  const from = (trust: TrustStore) => (file: string) => trust.file(file)

  it('prove it by two timestamp roles of one version; other bytes of the same prove nothing', async () => {
    const { a, b, ofA } = await forked('proof')
    expect(a.view().versions).toEqual(b.view().versions)
    expect(a.view().head).not.toBe(b.view().head)
    const [own, other] = [await bytesOf(a), await bytesOf(b)]
    for (const trust of [a, ofA]) {
      expect(await trust.provesFork(other)).toBe(true)
      expect(await trust.provesFork(own)).toBe(false)
      // A member that writes the signed content down in another way must not stop a master.
      expect(await trust.provesFork(Buffer.from(` ${own.toString()}\n`))).toBe(false)
      expect(await trust.provesFork(Buffer.from(own.toString().replace('"version":', '"version":1')))).toBe(false)
      expect(await trust.provesFork(Buffer.from('junk'))).toBe(false)
    }
  })

  it('get no release taken that another of that number stands for, until one signs over both', async () => {
    const { a, b, ofA, ofB, sign } = await forked('over')
    const next = await sign('b', b)
    await next.removeMember('nobody').catch(() => undefined)
    await next.addMember({
      id: 'x',
      name: 'x',
      role: 'machine',
      site: 'lab',
      group: 'lab',
      mac: [],
      added: '2026-01-01T00:00:00.000Z',
    })
    for (const trust of [a, ofA]) expect(await codeOf(trust.refresh(from(b)))).toBe('METADATA_FORKED')
    expect(ofA.view().release('win', 2)?.root).toEqual(Buffer.alloc(32, 7))
    // One master stays, and is told so.
    a.takeForks()
    await (await sign('a', a, true)).publish(release(3, 9))
    for (const trust of [ofA, ofB]) {
      expect(await trust.refresh(from(a))).toBe(true)
      expect(trust.view().newest('win')).toMatchObject({ release: 3, root: Buffer.alloc(32, 9) })
    }
    // The other one does not take that in silence.
    expect(await codeOf(b.refresh(from(a)))).toBe('METADATA_FORKED')
  })

  it('are told of it by whoever hears of both, once', async () => {
    const { a, ofB } = await forked('told')
    const warnings: string[] = []
    let asked = 0
    const sync = new MetadataSync({
      trust: a,
      open: async (peerId) => {
        asked++
        const [client, server] = streamPair('self', peerId)
        serveMetadata(server, ofB).catch(() => undefined)
        return client
      },
      warn: (text) => void warnings.push(text),
      nameOf: (id) => id,
    })
    const { versions, head } = ofB.view()
    expect(sync.fork).toBeUndefined()
    for (let times = 0; times < 3; times++) await sync.heard('pc1', { ...versions, head })
    expect(sync.fork?.code).toBe('METADATA_FORKED')
    expect(warnings).toEqual([
      expect.stringMatching(/was signed twice, with other content, as pc1 proves\. Two masters/),
    ])
    // Who claims what is not so is not asked all the time.
    expect(asked).toBe(1)
  })
})
