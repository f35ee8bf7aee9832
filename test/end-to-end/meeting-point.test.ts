import { readFile, truncate, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { PeerStatus } from '../../node/agent/answer/status.ts'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { SiteSigner } from '../../node/trust/site-signer.ts'
import { TrustStore } from '../../node/trust/trust-store.ts'
import { Random } from '../../tools/lab/random.ts'
import { HUB, whyNoNetwork } from '../../tools/netlab/network.ts'
import { ShapedLab } from '../../tools/netlab/shaped-lab.ts'
import { testSeed } from '../support/seed.ts'

const SIZE = 2 * 1024 ** 2
const WAIT = ['--wait', '2m']
const LIMIT_MS = 400_000
const why = await whyNoNetwork()
if (why !== undefined) console.warn(`SKIPPED: ${why}`)

/** Waits until a machine knows what another has, and so where it is reached. */
async function knows(lab: ShapedLab, machine: string, other: string): Promise<void> {
  for (;;) {
    const { peers } = (await lab.ok(machine, ['peers'])) as unknown as { peers: readonly PeerStatus[] }
    if (peers.some(({ name, held }) => name === other && held > 0)) return
    await sleep(200)
  }
}

/** Each machine in a site of its own; nobody runs on the master's state. */
async function separate(lab: ShapedLab): Promise<void> {
  const trust = await TrustStore.open(lab.path('master', 'trust'))
  const signer = await SiteSigner.open({ keysDir: lab.path('master', 'keys'), trust })
  for (const member of trust.view().members) await signer.addMember({ ...member, site: `site of ${member.name}` })
}

describe.skipIf(why !== undefined)('two sites that cannot reach each other', { timeout: LIMIT_MS }, () => {
  const random = new Random(testSeed('meeting point'))

  it('meet at a member that both can dial', async () => {
    const stop = new AbortController()
    await using stack = new AsyncDisposableStack()
    const lab = stack.adopt(await ShapedLab.open({ mdns: false, built: false }, stop.signal), (it) => it.close())
    await lab.add('master', 1, 'lan')
    await lab.add('pc', 1, 'uplink')
    lab.listenOn(HUB, '0.0.0.0')
    const model = lab.path('model.img')
    await writeFile(model, random.bytes(SIZE))
    const empty = async (machine: string): Promise<void> => {
      await writeFile(lab.disk(machine), '')
      await truncate(lab.disk(machine), SIZE)
    }
    for (const machine of [HUB, 'pc']) await empty(machine)

    // As long as they can reach the master they join, and hear of the meeting point.
    await lab.serve('master', ['seed', model, '--image', 'lab'])
    const { token } = await lab.ok('master', ['invite', '--uses', '2'])
    for (const machine of [HUB, 'pc'])
      await lab.ok(machine, ['join', String(token), '--disk', lab.disk(machine), '--name', machine])
    await lab.stop('master')
    await separate(lab)
    await lab.serve('master', ['seed', model, '--image', 'lab'])
    for (const machine of [HUB, 'pc']) {
      await lab.ok(machine, ['restore', ...WAIT])
      await lab.serve(machine, ['up'])
    }
    await knows(lab, 'pc', HUB)
    for (const machine of ['pc', HUB, 'master']) await lab.stop(machine)

    // From now on nobody can dial the two sites, and nothing passes between them.
    await lab.network.forward(false)
    for (const machine of ['master', 'pc']) lab.listenOn(machine, '127.0.0.1')
    for (const machine of [HUB, 'pc']) await empty(machine)
    await writeFile(model, random.bytes(SIZE))
    await lab.serve('master', ['seed', model, '--image', 'lab', '--force'])
    const first = (await lab.ok(HUB, ['restore', ...WAIT])) as unknown as RestoreResult
    expect(first.peers.map(({ name }) => name)).toEqual(['master'])
    await lab.serve(HUB, ['up'])
    const second = (await lab.ok('pc', ['restore', ...WAIT])) as unknown as RestoreResult
    expect(second.peers.map(({ name }) => name)).toEqual([HUB])
    expect(second.verified).toBe(true)
    expect(second.release).toBe(2)
    expect((await readFile(lab.disk('pc'))).equals(await readFile(model))).toBe(true)
  })
})
