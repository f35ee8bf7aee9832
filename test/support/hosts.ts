import { afterEach } from 'vitest'
import type { FrameStream } from '../../node/net/frame-stream.ts'
import { type HostOptions, MeshHost } from '../../node/net/host.ts'
import { loadOrCreateMachineKey } from '../../node/trust/machine-key.ts'
import { useTempDir } from './temp-dir.ts'

export const PROTOCOL = '/lab-mesh/test/1'

/** Real hosts on loopback, each with a key by its name; they are stopped after each test. */
export function useHosts(): (name: string, options?: Partial<HostOptions>) => Promise<MeshHost> {
  const dir = useTempDir()
  const hosts: MeshHost[] = []
  afterEach(async () => {
    await Promise.all(hosts.splice(0).map((host) => host.stop()))
  })
  return async (name, options = {}) => {
    const key = await loadOrCreateMachineKey(dir(`${name}.pem`))
    const listen = ['/ip4/127.0.0.1/tcp/0']
    const host = await MeshHost.start({ key, listen, gate: { admits: () => true }, ...options })
    hosts.push(host)
    return host
  }
}

/** The server's end of every stream that is opened to `host`; nothing reads it until the test does. */
export async function acceptStreams(host: MeshHost): Promise<() => Promise<FrameStream>> {
  const arrived: FrameStream[] = []
  const waiting: ((stream: FrameStream) => void)[] = []
  await host.handle(PROTOCOL, async (stream) => {
    const taker = waiting.shift()
    if (taker === undefined) arrived.push(stream)
    else taker(stream)
    await new Promise(() => undefined)
  })
  return () => {
    const stream = arrived.shift()
    return stream === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(stream)
  }
}

/** A stream from `a` to `b`, both ends. */
export async function streamBetween(a: MeshHost, b: MeshHost): Promise<[FrameStream, FrameStream]> {
  const accept = await acceptStreams(b)
  await a.connect(b.peerId, b.addresses())
  return [await a.open(b.peerId, PROTOCOL), await accept()]
}

/** Resolves once `value` has not changed for `quietMs`. */
export async function settled(value: () => number, quietMs = 250): Promise<number> {
  for (let before = Number.NaN; before !== value(); ) {
    before = value()
    await new Promise((resolve) => setTimeout(resolve, quietMs))
  }
  return value()
}
