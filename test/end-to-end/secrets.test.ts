import { createPrivateKey } from 'node:crypto'
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { decodeJoinToken } from '../../protocol/join-token.ts'
import { Lab, type MeshProcess, type Outcome } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, joinMachine } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const SEED = testSeed('secrets')

/** A secret in the encodings in which it could be told. */
function encodings(secret: Uint8Array): string[] {
  const bytes = Buffer.from(secret)
  return [
    bytes.toString('hex'),
    bytes.toString('base64').replace(/=+$/, ''),
    bytes.toString('base64url'),
    bytes.toString('latin1'),
    [...bytes].join(','),
  ]
}

/** Private keys below a folder: 32 bytes each, by the file. */
async function keysBelow(folder: string): Promise<Map<string, Buffer>> {
  const keys = new Map<string, Buffer>()
  for (const name of await readdir(folder, { recursive: true })) {
    if (!name.endsWith('.pem')) continue
    const pem = await readFile(join(folder, name), 'utf8')
    keys.set(join(folder, name), Buffer.from(createPrivateKey(pem).export({ format: 'jwk' }).d!, 'base64url'))
  }
  return keys
}

describe('what a lab tells', { timeout: 240_000 }, () => {
  let lab: Lab
  const told: string[] = []
  const lists: string[] = []
  let token = ''

  async function note(started: MeshProcess): Promise<Outcome> {
    lists.push(await readFile(`/proc/${started.child.pid}/cmdline`, 'latin1').catch(() => ''))
    lists.push(await readFile(`/proc/${started.child.pid}/environ`, 'latin1').catch(() => ''))
    const outcome = await started.exited
    told.push(outcome.stdout, outcome.stderr)
    return outcome
  }

  beforeAll(async () => {
    lab = await Lab.open()
    const image = Buffer.from(new Random(SEED).bytes(16 * BLOCK))
    await writeFile(lab.path('model.img'), image)
    const seeding = await lab.serve('master', ['seed', lab.path('model.img')])
    const seeded = note(seeding)
    token = await lab.invite('master')
    await joinMachine(lab, 'pc1', image, token)
    await note(await lab.start('pc1', ['restore']))
    await chmod(lab.path('pc1'), 0o777)
    const serving = await lab.serve('pc1', ['up'])
    const served = note(serving)
    for (const [machine, ...args] of [
      ['pc1', 'status'],
      ['pc1', 'peers'],
      ['pc1', 'receipts'],
      ['master', 'status'],
      ['master', 'receipts'],
      ['master', 'machines'],
      ['pc1', 'join', token, '--disk', lab.path('pc1.img')],
      ['master', 'site', 'show'],
    ] as const)
      await note(await lab.start(machine, args))
    await serving.stop()
    await seeding.stop()
    await Promise.all([seeded, served])
  }, 240_000)
  afterAll(() => lab.close())

  it('says that the state directory was open, and has closed it', () => {
    expect(told.join('')).toContain(`${lab.path('pc1')} was open to every user of this machine (mode 0777)`)
  })

  it('is no private key, in no encoding: neither printed, nor in lists of processes, nor in other files', async () => {
    const keys = new Map([...(await keysBelow(lab.path('master'))), ...(await keysBelow(lab.path('pc1')))])
    expect(keys.size).toBeGreaterThanOrEqual(5)
    const said = [...told, ...lists].join('\n')
    expect(said.length).toBeGreaterThan(1000)
    const secrets = [...keys.values()].flatMap(encodings)
    expect(secrets.filter((secret) => said.includes(secret))).toEqual([])
    for (const machine of ['master', 'pc1'])
      for (const name of await readdir(lab.path(machine), { recursive: true })) {
        const bytes = await readFile(lab.path(machine, name), 'latin1').catch(() => '')
        const found = [...keys].filter(
          ([path, key]) => path !== lab.path(machine, name) && encodings(key).some((one) => bytes.includes(one)),
        )
        expect(found.map(([path]) => `${path} in ${name}`)).toEqual([])
      }
  })

  it('is no token: what was invited is told once, and kept as a hash', async () => {
    const { secret } = decodeJoinToken(token)
    const secrets = [token, ...encodings(secret)]
    expect(secrets.filter((one) => told.join('\n').includes(one))).toEqual([])
    for (const machine of ['master', 'pc1'])
      for (const name of await readdir(lab.path(machine), { recursive: true })) {
        const bytes = await readFile(lab.path(machine, name), 'latin1').catch(() => '')
        expect(
          secrets.filter((one) => bytes.includes(one)),
          name,
        ).toEqual([])
      }
  })
})
