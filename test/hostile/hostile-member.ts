import { generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { noise } from '@chainsafe/libp2p-noise'
import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import type { Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { Machine } from '../../node/agent/machine/machine.ts'
import { startHost } from '../../node/agent/mesh/start-host.ts'
import { openDevice } from '../../node/disk/file-device.ts'
import { ImageDisk } from '../../node/disk/image-disk.ts'
import { type Hello, helloOf } from '../../node/exchange/local-facts.ts'
import type { FrameStream } from '../../node/net/frame-stream.ts'
import { MeshHost } from '../../node/net/host.ts'
import { loadOrCreateMachineKey } from '../../node/trust/machine-key.ts'
import { EXCHANGE_PROTOCOL } from '../../protocol/constants.ts'
import { type Digest, digestOf } from '../../protocol/digest.ts'
import { encodeFrame, FrameDecoder } from '../../protocol/frames.ts'
import { decodeJoinToken, type JoinToken } from '../../protocol/join-token.ts'
import type { HeldImage, WantRequest } from '../../protocol/message-parts.ts'
import type { Message } from '../../protocol/messages.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import type { SigningKey } from '../../protocol/signed-document.ts'
import { countBlocks } from '../../protocol/units.ts'

const RECONNECT_MS = 100

/** A member of the site with its own key, that says and does what it likes. What it serves is right, unless an attack says otherwise. */
export class HostileMember {
  readonly host: MeshHost
  readonly machine: Machine
  /** By which it has joined, and others still can. */
  readonly token: JoinToken
  /** The image that the machine has restored. */
  readonly image: HeldImage
  readonly #disk: ImageDisk
  /** Where the others are, by peer id. */
  readonly #targets: ReadonlyMap<string, string>
  #digests: Digest[] = []
  readonly #address: string
  /** How the member connects, if not by its own node. */
  #connect: ((peerId: string, address: string) => Promise<void>) | undefined

  private constructor(
    machine: Machine,
    { host, address }: { readonly host: MeshHost; readonly address: string },
    disk: ImageDisk,
    { targets, token }: { readonly targets: ReadonlyMap<string, string>; readonly token: string },
  ) {
    this.token = decodeJoinToken(token)
    this.#address = address
    this.machine = machine
    this.host = host
    this.#disk = disk
    this.#targets = targets
    const { root, size, blockSize } = machine.manifest()
    this.image = { root, size, blockSize }
  }

  /** `targets`: addresses of the others, by name. */
  static async start(
    stateDir: string,
    address: string,
    targets: Readonly<Record<string, string>>,
    token: string,
  ): Promise<HostileMember> {
    const machine = await Machine.open(stateDir)
    const { members } = machine.trust.view()
    const byId = new Map(members.flatMap(({ id, name }) => (name in targets ? [[id, targets[name]!] as const] : [])))
    const device = await openDevice(machine.diskPath, { writable: false })
    const disk = new ImageDisk(device, machine.manifest())
    const options = { listen: [address], mdns: false, admitsStrangers: () => true, report: () => undefined }
    const host = await startHost(machine, options)
    const member = new HostileMember(machine, { host, address }, disk, { targets: byId, token })
    for (let i = 0; i < member.blockCount; i++) member.#digests.push(digestOf(await member.block(i)))
    return member
  }

  /** Connects to everybody from now on. Resolves when all who listen now are connected. */
  async connect(): Promise<void> {
    await this.#keepConnected(this.host)
  }

  /** Another libp2p node with the same key, which is one more connection to everybody. */
  async another(): Promise<MeshHost> {
    const key = await this.machine.key()
    const host = await MeshHost.start({ key, listen: [], gate: { admits: () => true } })
    await this.#keepConnected(host)
    return host
  }

  /** Somebody with a key that no member has, connected to all who let it in. */
  async stranger(): Promise<void> {
    await this.#keepConnected(await strangerHost())
  }

  /** Somebody with such a key opens a stream to each who lets it in, and is gone when all are used. */
  async asStranger(protocol: string, use: (stream: FrameStream) => Promise<void>): Promise<void> {
    const host = await strangerHost()
    try {
      // A lab machine lets no stranger in.
      await Promise.allSettled(
        [...this.#targets].map(async ([peerId, address]) => {
          await host.connect(peerId, [address])
          await use(await host.open(peerId, protocol))
        }),
      )
    } finally {
      await host.stop()
    }
  }

  /**
   * Serves the exchange with bytes instead of messages: says hello and that it holds everything, then calls `answer` for each request, with
   * the bytes of a right answer. Another libp2p node takes the place of the member's own.
   */
  async raw(answer: (stream: Stream, right: Uint8Array) => void | Promise<void>): Promise<void> {
    await this.host.stop()
    const { seed, publicKey } = await this.machine.key()
    const node = await createLibp2p({
      privateKey: privateKeyFromRaw(Buffer.concat([seed, publicKey])),
      addresses: { listen: [this.#address] },
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
    })
    await node.handle(EXCHANGE_PROTOCOL, (stream) => {
      const decoder = new FrameDecoder()
      stream.addEventListener('message', ({ data }) => {
        for (const message of decoder.push(data.subarray())) void this.#answerRaw(stream, message, answer)
      })
    })
    this.#connect = async (peerId, address) => {
      await node.dial(multiaddr(`${address}/p2p/${peerId}`))
    }
  }

  async #answerRaw(
    stream: Stream,
    message: Message,
    answer: (stream: Stream, right: Uint8Array) => void | Promise<void>,
  ): Promise<void> {
    const frame = (one: Message): Uint8Array => Buffer.concat([...encodeFrame(one)])
    if (message.type === 'hello') stream.send(Buffer.concat([frame(this.hello()), frame(this.haveAll())]))
    else if (message.type === 'want')
      for (const { id, index } of message.requests) {
        const payload = await this.block(index)
        const right = { type: 'block', id, zeros: new Uint8Array(), payload, coding: 0, packedUs: 0 } as const
        await answer(stream, frame(right))
      }
  }

  /** Peer ids of the members that it attacks. */
  others(): string[] {
    return [...this.#targets.keys()]
  }

  /** Their keys, from their state directories: what is signed with these, members might have signed long ago. */
  async keysOfOthers(): Promise<Map<string, SigningKey>> {
    const keys = new Map<string, SigningKey>()
    const view = this.machine.trust.view()
    for (const id of this.others()) {
      const path = join(this.machine.home.directory, '..', view.memberById(id)!.name, 'identity.pem')
      keys.set(id, await loadOrCreateMachineKey(path))
    }
    return keys
  }

  get blockCount(): number {
    return countBlocks(this.image.size, this.image.blockSize)
  }

  hello(changes: Partial<Hello> = {}): Hello {
    const { trust, config } = this.machine
    const metadata = { ...trust.view().versions, head: trust.view().head }
    const facts = { siteId: trust.siteId, name: config.name, metadata, addresses: this.host.addresses() }
    return { ...helloOf({ ...facts, held: [this.image] }), ...changes }
  }

  /** Says that it holds everything. */
  haveAll(): Message {
    return { type: 'have', root: this.image.root, gained: RangeSet.of(0, this.blockCount), lost: RangeSet.empty }
  }

  /** Content of a block that is asked for, as long as whole blocks of level 0 are. */
  async block(index: number): Promise<Uint8Array> {
    return Buffer.from(await this.#disk.readBlock(index))
  }

  /** Serves the exchange: says hello and that it holds everything, then passes each message to `answer`. */
  async serve(
    answer: (message: Message, stream: FrameStream) => void | Promise<void>,
    options: { readonly hello?: Partial<Hello>; readonly begin?: (stream: FrameStream) => void | Promise<void> } = {},
  ): Promise<void> {
    await this.host.handle(EXCHANGE_PROTOCOL, async (stream) => {
      const messages = stream.messages()
      await messages.next()
      await stream.send(this.hello(options.hello))
      await stream.send(this.haveAll())
      await options.begin?.(stream)
      for await (const message of messages) await answer(message, stream)
    })
  }

  /** Opens streams to everybody that is, or will be, connected; `use` is called once for each connection. */
  attack(protocol: string, use: (open: () => Promise<FrameStream>, peerId: string) => Promise<void>): void {
    this.host.onConnect((peerId) => {
      void use(() => this.host.open(peerId, protocol), peerId).catch(() => undefined)
    })
  }

  /** As a client: an exchange stream with hellos exchanged, and what comes on it. */
  async asClient(
    open: () => Promise<FrameStream>,
  ): Promise<{ stream: FrameStream; messages: AsyncGenerator<Message> }> {
    const stream = await open()
    await stream.send(this.hello())
    const messages = stream.messages()
    await messages.next()
    return { stream, messages }
  }

  /** Requests for whole blocks, beginning at `id`. */
  wants(id: number, count: number): WantRequest[] {
    const { blockSize } = this.image
    return Array.from({ length: count }, (_, i) => ({
      id: id + i,
      digest: this.#digests[(id + i) % this.blockCount]!,
      level: 0,
      index: (id + i) % this.blockCount,
      size: blockSize,
      granules: new Uint8Array(),
    }))
  }

  /** A victim listens only while it restores, so everybody is tried again and again. Resolves when all were tried once. */
  async #keepConnected(host: MeshHost): Promise<void> {
    const own = host === this.host ? this.#connect : undefined
    const connect = async ([peerId, address]: readonly [string, string]): Promise<void> => {
      await (own?.(peerId, address) ?? host.connect(peerId, [address])).catch(() => undefined)
    }
    await Promise.all([...this.#targets].map(connect))
    for (const target of this.#targets)
      void (async () => {
        for (;;) {
          await sleep(RECONNECT_MS)
          await connect(target)
        }
      })()
  }
}

async function strangerHost(): Promise<MeshHost> {
  const publicKey = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  const [seed, raw] = [Buffer.from(publicKey.d!, 'base64url'), Buffer.from(publicKey.x!, 'base64url')]
  return MeshHost.start({ key: { seed, publicKey: raw }, listen: [], gate: { admits: () => true } })
}
