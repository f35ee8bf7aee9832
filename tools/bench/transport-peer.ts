import { generateKeyPairSync } from 'node:crypto'
import type { FrameStream } from '../../node/net/frame-stream.ts'
import { readJson } from '../../protocol/document.ts'
import { natural, object } from '../../protocol/json-shape.ts'
import { SMALL_DEPTH, type TransportEnd } from './transport-end.ts'

/** One side of `npm run bench -- transport`, as a process of its own. Messages of its parent tell it what to do. */

const PROTOCOL = '/lab-mesh/bench/1'
const LOOPBACK = '/ip4/127.0.0.1/tcp/0'

const isOrder = object({ count: natural(), size: natural() })

/** The side of the mesh: its host, its streams of messages. */
async function meshEnd(): Promise<TransportEnd> {
  const { MeshHost } = await import('../../node/net/host.ts')
  const jwk = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  const key = { seed: Buffer.from(jwk.d!, 'base64url'), publicKey: Buffer.from(jwk.x!, 'base64url') }
  const host = await MeshHost.start({ key, listen: [LOOPBACK], gate: { admits: () => true } })
  await host.handle(PROTOCOL, async (stream) => {
    for await (const message of stream.messages()) {
      if (message.type !== 'file-request') throw new Error(message.type)
      const { count, size } = readJson('what is asked for', isOrder, message.name)
      const payload = Buffer.alloc(size, 1)
      for (let i = 0; i < count; i++) await stream.send({ type: 'file-reply', found: true, payload })
    }
  })
  let opened: FrameStream | undefined
  let answers: AsyncGenerator<unknown> | undefined
  return {
    peerId: host.peerId,
    address: host.addresses()[0]!,
    async connect(peerId, address) {
      await host.connect(peerId, [address])
      opened = await host.open(peerId, PROTOCOL)
      answers = opened.messages()
    },
    async bulk(count, size) {
      await opened!.send({ type: 'file-request', name: JSON.stringify({ count, size }) })
      for (let i = 0; i < count; i++) await answers!.next()
    },
    async small(count, size) {
      const ask = (): void => void opened!.send({ type: 'file-request', name: JSON.stringify({ count: 1, size }) })
      for (let i = 0; i < Math.min(SMALL_DEPTH, count); i++) ask()
      for (let i = 0; i < count; i++) {
        await answers!.next()
        if (i + SMALL_DEPTH < count) ask()
      }
    },
  }
}

async function main(kind: string): Promise<void> {
  const end = kind === 'mesh' ? await meshEnd() : await (await import('./stock-end.ts')).stockEnd(PROTOCOL, LOOPBACK)
  const run = async (job: Job): Promise<unknown> => {
    if (job.do === 'connect') return end.connect(job.peerId, job.address)
    if (job.do === 'cpu') return process.cpuUsage()
    return end[job.do](job.count, job.size)
  }
  process.on('message', (job: Job) => {
    run(job).then(
      (result) => process.send!({ result }),
      (error) => process.send!({ error: String(error) }),
    )
  })
  process.on('disconnect', () => process.exit())
  process.send!({ result: { peerId: end.peerId, address: end.address } })
}

/** What the parent may ask for, one at a time. */
export type Job =
  | { readonly do: 'connect'; readonly peerId: string; readonly address: string }
  | { readonly do: 'bulk' | 'small'; readonly count: number; readonly size: number }
  | { readonly do: 'cpu' }

await main(process.argv[2] ?? '')
