import { spawn } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { SiteSigner } from '../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { Random } from '../../../tools/lab/random.ts'
import { testSeed } from '../../support/seed.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const CHILD = join(import.meta.dirname, 'change-forever.ts')
const KILLS = 30
const CREATION_KILLS = 15

/** What a killed child had said to be durable. */
interface Said {
  published: number
  refreshed: number
}

/** Kills a child some time after its first line that matches; that it is a SIGKILL and no end of its own is checked. */
async function killed(dir: string, after: RegExp, delayMs: number): Promise<Said> {
  const child = spawn(process.execPath, [CHILD, dir], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.on('close', (_code, signal) => resolve(signal)))
  const begun = new Promise<void>((resolve) => {
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString()
      if (after.test(output)) resolve()
    })
  })
  await Promise.race([begun, ended])
  await new Promise((resolve) => setTimeout(resolve, delayMs))
  child.kill('SIGKILL')
  expect(await ended, output).toBe('SIGKILL')
  const last = (what: string): number =>
    Number([...output.matchAll(new RegExp(`^${what} (\\d+)$`, 'gm'))].at(-1)?.[1] ?? 0)
  return { published: last('published'), refreshed: last('refreshed') }
}

const newestOf = (store: TrustStore): number => store.view().newest('win')?.release ?? 0
const generationsIn = async (dir: string): Promise<string[]> =>
  (await readdir(dir)).filter((name) => name.startsWith('gen-') || name === 'offer')

/** SIGKILL shows that the order of the steps is right; that each is flushed before the next only a power cut could show. */
describe('the trusted metadata', () => {
  const dir = useTempDir()

  it(`is the old or the new generation after each of ${KILLS} SIGKILLs while it changes`, async () => {
    const random = new Random(testSeed('trust crash'))
    await makeSite(dir('site'))
    let before: Said = { published: 0, refreshed: 0 }
    for (let kill = 0; kill < KILLS; kill++) {
      const said = await killed(dir('site'), /published/, random.below(250))
      const told = {
        published: Math.max(said.published, before.published),
        refreshed: Math.max(said.refreshed, before.refreshed),
      }
      const master = await TrustStore.open(dir('site', 'trust'))
      const machine = await TrustStore.open(dir('site', 'machine'))
      const found = { published: newestOf(master), refreshed: newestOf(machine) }
      const what = `told ${JSON.stringify(told)}, found ${JSON.stringify(found)}`
      expect([told.published, told.published + 1], what).toContain(found.published)
      // The last refresh may have been cut off after its commit, before it said so; it goes to the newest release at once.
      expect(found.refreshed, what).toBeGreaterThanOrEqual(told.refreshed)
      expect(found.refreshed, what).toBeLessThanOrEqual(found.published)
      before = found
    }
    expect(before.published).toBeGreaterThanOrEqual(KILLS)

    // What the crashes left is gone after the next change.
    const trust = await TrustStore.open(dir('site', 'trust'))
    const machine = await TrustStore.open(dir('site', 'machine'))
    const signer = await SiteSigner.open({ keysDir: dir('site', 'keys'), trust })
    await signer.publish(makeManifest({ release: before.published + 1 }))
    await machine.refresh((name) => trust.file(name))
    for (const name of ['trust', 'machine']) expect(await generationsIn(dir('site', name)), name).toHaveLength(1)
  })

  it(`is no site or a whole one after each of ${CREATION_KILLS} SIGKILLs while it is made`, async () => {
    const random = new Random(testSeed('trust creation crash'))
    for (let kill = 0; kill < CREATION_KILLS; kill++) {
      const here = dir(`creation-${kill}`)
      await killed(here, /begun/, random.below(150))
      const found = await TrustStore.open(join(here, 'trust')).catch(() => undefined)
      const { signer, trust } = await makeSite(here)
      if (found !== undefined) expect(trust.siteId).toEqual(found.siteId)
      await signer.publish(makeManifest({ release: newestOf(trust) + 1 }))
      const machine = await TrustStore.open(join(here, 'machine')).catch(() =>
        TrustStore.join(join(here, 'machine'), trust.siteId, (name) => trust.file(name)),
      )
      await machine.refresh((name) => trust.file(name))
      expect(newestOf(machine)).toBe(newestOf(trust))
    }
  })
})
