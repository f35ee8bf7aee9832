import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { Random } from '../../../tools/lab/random.ts'
import { testSeed } from '../../support/seed.ts'
import { makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const CHILD = join(import.meta.dirname, '../../support/publish-forever.ts')
const KILLS = 20

describe('the trusted metadata', () => {
  const dir = useTempDir()

  it(`is the old or the new generation after each of ${KILLS} SIGKILLs while it changes`, async () => {
    const random = new Random(testSeed('trust crash'))
    await makeSite(dir())
    let release = 0
    for (let kill = 0; kill < KILLS; kill++) {
      const child = spawn(process.execPath, [CHILD, dir()], { stdio: ['ignore', 'pipe', 'inherit'] })
      let told = release
      const begun = new Promise<void>((resolve) => {
        child.stdout.on('data', (chunk: Buffer) => {
          // The child prints a release when it is durable.
          told = Number(chunk.toString().trim().split('\n').at(-1))
          resolve()
        })
      })
      const ended = new Promise((resolve) => child.on('exit', resolve))
      await begun
      await new Promise((resolve) => setTimeout(resolve, random.below(60)))
      child.kill('SIGKILL')
      await ended
      const store = await TrustStore.open(dir('trust'))
      release = store.view().newest('win')?.release ?? 0
      expect(release === told || release === told + 1, `told ${told}, found ${release}`).toBe(true)
    }
    expect(release).toBeGreaterThanOrEqual(KILLS)
  })
})
