import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 8
const ROLES = ['root', 'targets', 'snapshot', 'timestamp', 'members']

describe('the keys of a site', () => {
  const random = new Random(testSeed('site keys'))
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
    const image = await startMaster(lab, BLOCKS, random)
    await joinMachine(lab, 'pc1', image, await lab.invite('master'))
  })
  afterAll(() => lab.close())

  it('are shown on every machine, whatever runs there, and which of them are here', async () => {
    const running = await lab.ok('master', ['site', 'show'])
    expect(running).toMatchObject({ event: 'site', site: 'lab', role: 'master', members: 2, unused: [], advice: [] })
    const own = await lab.ok('pc1', ['site', 'show'])
    expect(own).toMatchObject({ siteId: running.siteId, name: 'pc1', masters: running.masters })
    for (const [machine, here] of [
      ['master', true],
      ['pc1', false],
    ] as const) {
      const { roles } = await lab.ok(machine, ['site', 'show'])
      const one = (role: string) => ({
        role,
        threshold: 1,
        state: 'valid',
        keys: [{ here, id: expect.stringMatching(/^[0-9a-f]{64}$/) }],
      })
      expect(roles).toMatchObject(ROLES.map(one))
    }
    // A key that nothing names.
    await writeFile(lab.path('master', 'keys', 'old.pem'), OLD)
    expect((await lab.ok('master', ['site', 'show'])).unused).toHaveLength(1)
  })
})

const OLD = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
`
