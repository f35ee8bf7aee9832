import { expect, it, onTestFinished } from 'vitest'
import { IdentityWatch } from '../../../../node/agent/mesh/identity-watch.ts'
import { helloOf, type LocalFacts } from '../../../../node/exchange/local-facts.ts'
import type { RunningNode } from '../../../../protocol/message-parts.ts'
import { type FakeStream, streamPair } from '../../../fakes/frame-stream-pair.ts'

const FACTS: LocalFacts = {
  siteId: Buffer.alloc(32, 1),
  name: 'boss',
  metadata: { root: 1, timestamp: 1 },
  addresses: ['/ip4/192.0.2.1/tcp/7433'],
  held: [],
}
const node = (digit: string, host: string): RunningNode => ({
  instance: digit.repeat(16),
  host,
  disk: '',
  mac: [],
  addresses: [`/ip4/192.0.2.${digit}/tcp/7433`],
})

/** A watch of a peer with one connection to each of `nodes`; undefined: one that does not answer. */
function watching(nodes: readonly (RunningNode | undefined)[]) {
  const warnings: string[] = []
  /** What each node was told of twins. */
  const told = nodes.map((): (readonly RunningNode[])[] => [])
  let looks = 0
  const answer = async (stream: FakeStream, at: number): Promise<void> => {
    for await (const message of stream.messages()) {
      if (message.type !== 'hello') return
      told[at]!.push(message.twins ?? [])
      const { addresses, ...running } = nodes[at]!
      await stream.send(helloOf({ ...FACTS, addresses, running: { ...running, addresses: [] } }))
    }
  }
  const watch = new IdentityWatch({
    self: () => node('9', 'boss'),
    hello: (twins) => helloOf({ ...FACTS, twins }),
    nameOf: (peerId) => `name of ${peerId}`,
    warn: (text) => void warnings.push(text),
    lookMs: 1,
    openAll: async () => {
      looks++
      return nodes.map((one, at) => {
        if (one === undefined) return undefined
        const [near, far] = streamPair('peer', 'self')
        answer(far, at).catch(() => undefined)
        return near
      })
    },
  })
  onTestFinished(() => watch.stop())
  return { watch, warnings, told, looks: () => looks }
}

const until = (isSo: () => boolean): Promise<void> => expect.poll(isSo).toBe(true)

it('names two machines that run with one key, once, and tells both', async () => {
  const [a, b] = [node('2', 'lab-02'), node('3', 'lab-03')]
  const { watch, warnings, told } = watching([a, b])
  watch.connected('peer', 2)
  await until(() => told.every((all) => all.length === 2))
  expect(told).toEqual([
    [[], [a, b]],
    [[], [a, b]],
  ])
  expect(warnings).toEqual([
    expect.stringMatching(
      /^2 machines run with the key of name of peer: host lab-02 at .*2\.2.*; host lab-03 at .*2\.3/,
    ),
  ])
  expect(watch.sharedBy('peer')?.machines).toEqual([a, b])
  watch.connected('peer', 3)
  await until(() => told.every((all) => all.length === 4))
  expect(warnings).toHaveLength(1)
})

it('says nothing of one machine with two connections, and does not ask it again', async () => {
  const one = node('2', 'lab-02')
  const { watch, warnings, told, looks } = watching([one, one])
  watch.connected('peer', 1)
  watch.connected('peer', 2)
  await until(() => told.every((all) => all.length === 1))
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect([warnings, watch.sharedBy('peer'), looks()]).toEqual([[], undefined, 1])
})

it('asks again where a connection does not answer, and then no more', async () => {
  const { watch, warnings, looks } = watching([node('2', 'lab-02'), undefined])
  watch.connected('peer', 2)
  await until(() => looks() === 10)
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect([warnings, looks()]).toEqual([[], 10])
})

it('says what a peer tells of others with the key of this machine, once, and nothing of itself', () => {
  const { watch, warnings } = watching([])
  const [self, twin] = [node('9', 'boss'), node('2', 'lab-02')]
  watch.told('peer', { twins: [self] })
  expect([warnings, watch.ownTwins]).toEqual([[], undefined])
  for (const peer of ['peer', 'other']) watch.told(peer, { twins: [self, twin] })
  expect(warnings).toEqual([
    expect.stringMatching(/as name of peer says: host lab-02 at .*; this machine is host boss/),
  ])
  expect(watch.ownTwins?.machines).toEqual([twin])
})

it('tells of multicast DNS answers with its own key from elsewhere', () => {
  const { watch, warnings } = watching([])
  watch.seen(['/ip4/192.0.2.9/tcp/1'], ['/ip4/192.0.2.9/tcp/1'])
  expect(warnings).toEqual([])
  for (let times = 0; times < 2; times++) watch.seen(['/ip4/192.0.2.8/tcp/1'], ['/ip4/192.0.2.9/tcp/1'])
  expect(warnings).toEqual([expect.stringMatching(/^somebody at \/ip4\/192\.0\.2\.8\/tcp\/1 says/)])
})
