import { spawn } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openSite } from '../../../../node/agent/release/open-site.ts'
import { changeKeys } from '../../../../node/agent/site/change-keys.ts'
import { keysOf, SITE_ROLES, SiteKeys } from '../../../../node/trust/site-keys.ts'
import { SiteSigner } from '../../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../../node/trust/trust-store.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { testSeed } from '../../../support/seed.ts'
import { makeManifest } from '../../../support/site.ts'
import { useTempDir } from '../../../support/temp-dir.ts'

const CHILD = join(import.meta.dirname, 'rotate-forever.ts')
const KILLS = 20
const dir = useTempDir()

/** The last root that a child had said to be in force when it was killed. */
async function killed(stateDir: string, delayMs: number): Promise<number> {
  const child = spawn(process.execPath, [CHILD, stateDir], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.on('close', (_code, signal) => resolve(signal)))
  const begun = new Promise<void>((resolve) => {
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString()
      if (/root/.test(output)) resolve()
    })
  })
  await Promise.race([begun, ended])
  await new Promise((resolve) => setTimeout(resolve, delayMs))
  child.kill('SIGKILL')
  expect(await ended, output).toBe('SIGKILL')
  return Number([...output.matchAll(/^root (\d+)$/gm)].at(-1)?.[1] ?? 0)
}

it(`has keys for all that is signed after each of ${KILLS} SIGKILLs while keys change, and machines follow`, {
  timeout: 300_000,
}, async () => {
  const random = new Random(testSeed('rotate crash'))
  const stateDir = dir('master')
  let follower: TrustStore | undefined
  for (let kill = 0; kill < KILLS; kill++) {
    const said = await killed(stateDir, random.below(120))
    const machine = await openSite(stateDir, { listen: [] }, { report: () => undefined, command: 'test' })
    const { trust } = machine
    const keysDir = machine.state.path('keys')
    const found = trust.view().versions.root
    expect([said, said + 1]).toContain(found)
    // A key too many may lie there; none is missing.
    const signer = await SiteSigner.open({ keysDir, trust })
    const roles = await trust.roles()
    const keys = await SiteKeys.load(keysDir)
    for (const role of SITE_ROLES) keys.signers(role, keysOf(roles, role))
    expect((await readdir(keysDir)).length).toBeLessThanOrEqual(SITE_ROLES.length + 1)
    await signer.publish(makeManifest({ release: (trust.view().newest('win')?.release ?? 0) + 1 }))
    // It has missed several roots.
    follower ??= await TrustStore.join(dir('follower'), trust.siteId, (name) => trust.file(name))
    await follower.refresh((name) => trust.file(name))
    expect(follower.view().versions).toEqual(trust.view().versions)
    if (kill % 5 === 4) {
      await changeKeys(machine, { change: 'rotate', role: 'root', given: [], next: [], threshold: 1, dryRun: false })
      expect((await readdir(keysDir)).sort()).toHaveLength(SITE_ROLES.length)
    }
    await machine.close()
  }
})
