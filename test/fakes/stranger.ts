import { createHash, createPublicKey, verify } from 'node:crypto'
import type { Connection, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import type { Libp2p } from 'libp2p'
import { stockNode } from '../support/stock-node.ts'

/**
 * A peer that somebody wrote who had docs/PROTOCOL.md and libp2p as it comes. Nothing of protocol/ and node/ is imported here:
 * what this peer cannot know from the document must be written there.
 */

const EXCHANGE = '/lab-mesh/exchange/2'
const JOIN = '/lab-mesh/join/1'
const METADATA = '/lab-mesh/metadata/1'
const KIND = {
  hello: 1,
  have: 2,
  want: 3,
  block: 4,
  missing: 5,
  cancel: 6,
  busy: 7,
  peers: 9,
  find: 11,
  found: 12,
  joinRequest: 16,
  joinReply: 17,
  enrolRequest: 18,
  enrolReply: 19,
  fileRequest: 24,
} as const
const GRANULE = 4096
const DIGEST = 32
const PREFIX = 8
const CREDIT = 8 * 1024 * 1024

type Value = number | string | Uint8Array
type Fields = readonly (readonly [number, Value])[]
type Read = Map<number, (number | Buffer)[]>

interface Frame {
  readonly kind: number
  readonly fields: Read
  readonly payload: Buffer
}

/** What a stream to another peer has carried. */
export interface Traffic {
  received: number
  sent: number
}

interface Image {
  readonly root: Buffer
  readonly size: number
  readonly blockSize: number
}

/** Frames over a libp2p stream, in both directions. */
class Frames {
  readonly traffic: Traffic
  readonly #stream: Stream
  readonly #arriving: AsyncIterator<{ subarray(): Uint8Array }>
  #rest = Buffer.alloc(0)

  constructor(stream: Stream, traffic: Traffic = { received: 0, sent: 0 }) {
    this.#stream = stream
    this.#arriving = stream[Symbol.asyncIterator]()
    this.traffic = traffic
  }

  send(kind: number, fields: Fields, payload: Uint8Array = new Uint8Array()): void {
    const header = message([[kind, message(fields)]])
    const lengths = Buffer.alloc(PREFIX)
    lengths.writeUInt32BE(header.byteLength, 0)
    lengths.writeUInt32BE(payload.byteLength, 4)
    const frame = Buffer.concat([lengths, header, payload])
    this.traffic.sent += frame.byteLength
    this.#stream.send(frame)
  }

  /** The next frame; undefined at the end of the stream. */
  async next(): Promise<Frame | undefined> {
    const lengths = await this.#take(PREFIX)
    if (lengths === undefined) return undefined
    const header = await this.#take(lengths.readUInt32BE(0))
    const payload = await this.#take(lengths.readUInt32BE(4))
    if (header === undefined || payload === undefined) return undefined
    const [[kind, [body]]] = [...read(header)] as [[number, [Buffer]]]
    return { kind, fields: read(body), payload }
  }

  close(): Promise<void> {
    return this.#stream.close()
  }

  async #take(bytes: number): Promise<Buffer | undefined> {
    const parts = [this.#rest]
    for (let have = this.#rest.byteLength; have < bytes; ) {
      const { done, value } = await this.#arriving.next()
      if (done === true) return undefined
      const part = Buffer.from(value.subarray())
      this.traffic.received += part.byteLength
      have += part.byteLength
      parts.push(part)
    }
    const all = parts.length === 1 ? this.#rest : Buffer.concat(parts)
    this.#rest = all.subarray(bytes)
    return all.subarray(0, bytes)
  }
}

/** A member of a site that shares no code with the mesh. */
export class Stranger {
  readonly #node: Libp2p
  readonly #name: string
  #siteId: Uint8Array = Buffer.alloc(DIGEST)
  /** Blocks and pages, by their digest in hexadecimal. */
  readonly #contents = new Map<string, Buffer>()
  #held: Image | undefined

  private constructor(node: Libp2p, name: string) {
    this.#node = node
    this.#name = name
  }

  static async start(name: string): Promise<Stranger> {
    return new Stranger(await stockNode(), name)
  }

  /** Becomes a member by a join token. Returns the peer id of the master. */
  async join(token: string): Promise<string> {
    const fields = read(Buffer.from(token.slice('mesh-'.length), 'base64url').subarray(4))
    this.#siteId = bytesOf(fields, 1)
    const master = bytesOf(fields, 2).toString()
    const [address = ''] = fields.get(3)?.map(String) ?? []
    const connection = await this.#node.dial(multiaddr(`${address}/p2p/${master}`))
    const frames = new Frames(await connection.newStream(JOIN))
    frames.send(KIND.joinRequest, [
      [1, this.#siteId],
      [2, bytesOf(fields, 4)],
      [3, this.#name],
    ])
    const reply = await frames.next()
    if (reply?.kind !== KIND.joinReply || reply.fields.has(1)) throw new Error(`refused: ${reply?.fields.get(2)}`)
    await frames.close()
    return master
  }

  /**
   * Asks whoever listens at an address to be enrolled, without a token, once it has proven to be the master of the site. Returns its
   * peer id, the code of the own key, and how to ask; what comes of asking is a number of the table of states.
   */
  async enrol(
    address: string,
    siteId: string,
    mac: string,
  ): Promise<{ master: string; code: string; ask: (enrol: boolean) => Promise<number> }> {
    this.#siteId = Buffer.from(siteId, 'hex')
    const connection = await this.#node.dial(multiaddr(address))
    const master = connection.remotePeer.toString()
    const request = async (fields: Fields): Promise<Read> => {
      const frames = new Frames(await connection.newStream(JOIN))
      frames.send(KIND.enrolRequest, [[1, this.#siteId], ...fields])
      const reply = await frames.next()
      await frames.close()
      if (reply?.kind !== KIND.enrolReply || reply.fields.has(1)) throw new Error(`refused: ${reply?.fields.get(2)}`)
      return reply.fields
    }
    const proof = await request([])
    const machine = this.#node.peerId.toString()
    const text = `{"machine":"${machine}","master":"${master}","site":"${siteId}"}`
    const [by, signature] = [bytesOf(proof, 9).toString(), Buffer.from(bytesOf(proof, 10).toString(), 'base64url')]
    const key = peerIdFromString(by).publicKey?.raw ?? new Uint8Array()
    const jwk = { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(key).toString('base64url') }
    const isSigned = verify(
      undefined,
      Buffer.from(`lab-mesh/master/1\n${text}`),
      createPublicKey({ key: jwk, format: 'jwk' }),
      signature,
    )
    if (!isSigned || !(await this.#timestampKeys(master)).includes(Buffer.from(key).toString('hex')))
      throw new Error('that is not the master')
    const facts: Fields = [
      [1, 'stranger'],
      [2, mac],
    ]
    const ask = async (enrol: boolean): Promise<number> =>
      numberOf(await request([[2, message(facts)], ...(enrol ? [[3, 1] as const] : [])]), 3)
    return { master, code: codeOf(machine), ask }
  }

  /** Of a site that has had one root; hexadecimal. */
  async #timestampKeys(master: string): Promise<string[]> {
    const root = await this.file(master, '1.root.json')
    if (root === undefined || !sha256(root).equals(this.#siteId)) throw new Error('that is another site')
    const { signed } = JSON.parse(root.toString()) as {
      signed: { keys: Record<string, { keyval: { public: string } }>; roles: { timestamp: { keyids: string[] } } }
    }
    return signed.roles.timestamp.keyids.flatMap((id) => signed.keys[id]?.keyval.public ?? [])
  }

  /** A file of the metadata protocol; undefined if the peer has none of that name for us. */
  async file(peerId: string, name: string): Promise<Buffer | undefined> {
    const frames = new Frames(await this.#connectionTo(peerId).newStream(METADATA))
    frames.send(KIND.fileRequest, [[1, name]])
    const reply = await frames.next()
    await frames.close()
    return reply !== undefined && numberOf(reply.fields, 1) === 1 ? reply.payload : undefined
  }

  /** Connects to a machine as soon as it listens. */
  async connect(address: string): Promise<void> {
    for (;;) {
      try {
        await this.#node.dial(multiaddr(address))
        return
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    }
  }

  /** All of the only image that a connected member holds, over one stream. */
  async restore(peerId: string): Promise<{ image: Buffer; traffic: Traffic }> {
    const frames = new Frames(await this.#connectionTo(peerId).newStream(EXCHANGE))
    // A client that serves nothing grants no credit and holds nothing.
    frames.send(KIND.hello, this.#hello(0))
    const hello = await frames.next()
    if (hello?.kind !== KIND.hello) throw new Error('no hello')
    const [held] = hello.fields.get(6) ?? []
    const image = imageOf(read(held as Buffer))
    const client = new Asking(frames, numberOf(hello.fields, 7), image.blockSize)
    const reading = client.run()
    const blocks = await this.#fetchTree(client, image)
    await frames.close()
    await reading
    this.#held = image
    return { image: Buffer.concat(blocks).subarray(0, image.size), traffic: frames.traffic }
  }

  /** Opens a stream to a connected member, and asks for nothing. Returns how to wait until it has told of a peer at `address`. */
  async listen(peerId: string): Promise<(address: string) => Promise<void>> {
    const frames = new Frames(await this.#connectionTo(peerId).newStream(EXCHANGE))
    frames.send(KIND.hello, this.#hello(0))
    return async (address) => {
      for (let frame = await frames.next(); frame !== undefined; frame = await frames.next()) {
        if (frame.kind !== KIND.peers) continue
        const peers = frame.fields.get(1)?.map((peer) => read(peer as Buffer)) ?? []
        if (peers.some((peer) => peer.get(2)?.some((at) => String(at) === address))) return
      }
      throw new Error('the stream ended')
    }
  }

  #connectionTo(peerId: string): Connection {
    const found = this.#node.getConnections().find(({ remotePeer }) => remotePeer.toString() === peerId)
    if (found === undefined) throw new Error(`not connected to ${peerId}`)
    return found
  }

  /** Serves what was restored to every member that opens a stream. */
  async serve(): Promise<Traffic> {
    const traffic = { received: 0, sent: 0 }
    // A machine that ends resets its streams.
    await this.#node.handle(EXCHANGE, (stream) => void this.#answer(new Frames(stream, traffic)).catch(() => undefined))
    return traffic
  }

  #hello(credit: number): Fields {
    const own = this.#held
    return [
      [1, 2],
      [2, 2],
      [3, this.#siteId],
      [4, this.#name],
      [5, message([])],
      ...(own === undefined ? [] : [[6, imageFields(own)] as const]),
      [7, credit],
      ...this.#node.getMultiaddrs().map((at) => [8, at.toString().split('/p2p/')[0]!] as const),
    ]
  }

  /** Level by level from the root; returns the blocks in order. */
  async #fetchTree(client: Asking, { root, size, blockSize }: Image): Promise<Buffer[]> {
    const counts = [Math.ceil(size / blockSize)]
    while (counts.at(-1)! > 1) counts.push(Math.ceil((counts.at(-1)! * DIGEST) / blockSize))
    let digests = [root]
    for (let level = counts.length - 1; ; level--) {
      const items = await Promise.all(digests.map((digest, index) => client.ask(digest, level, index)))
      for (const [i, item] of items.entries()) {
        if (!sha256(item).equals(digests[i]!)) throw new Error(`wrong content at ${level}, ${i}`)
        this.#contents.set(digests[i]!.toString('hex'), item)
      }
      if (level === 0) return items
      const pages = Buffer.concat(items)
      digests = Array.from({ length: counts[level - 1]! }, (_, i) => pages.subarray(i * DIGEST, (i + 1) * DIGEST))
    }
  }

  async #answer(frames: Frames): Promise<void> {
    const hello = await frames.next()
    const own = this.#held
    if (hello?.kind !== KIND.hello || own === undefined) return frames.close()
    frames.send(KIND.hello, this.#hello(CREDIT))
    const all = Buffer.concat([varint(0), varint(Math.ceil(own.size / own.blockSize))])
    frames.send(KIND.have, [
      [1, own.root],
      [2, all],
    ])
    for (let frame = await frames.next(); frame !== undefined; frame = await frames.next()) {
      if (frame.kind === KIND.want)
        for (const request of frame.fields.get(1) ?? []) this.#answerOne(frames, read(request as Buffer))
      else if (frame.kind === KIND.find) frames.send(KIND.found, [[1, numberOf(frame.fields, 1)]])
    }
    await frames.close()
  }

  #answerOne(frames: Frames, request: Read): void {
    const id = numberOf(request, 1)
    const content = this.#contents.get(bytesOf(request, 2).toString('hex'))
    if (content === undefined) {
      frames.send(KIND.missing, [[1, varint(id)]])
      return
    }
    const wanted = bytesOf(request, 6)
    const count = content.byteLength / GRANULE
    const zeros = Buffer.alloc(Math.ceil(count / 8))
    const parts: Buffer[] = []
    for (let i = 0; i < count; i++) {
      if (wanted.byteLength > 0 && (wanted[i >> 3]! & (1 << (i & 7))) === 0) continue
      const granule = content.subarray(i * GRANULE, (i + 1) * GRANULE)
      if (granule.some((byte) => byte !== 0)) parts.push(granule)
      else zeros[i >> 3]! |= 1 << (i & 7)
    }
    const named = zeros.some((byte) => byte !== 0) ? [[2, zeros] as const] : []
    frames.send(KIND.block, [[1, id], ...named], Buffer.concat(parts))
  }
}

/** The requests of a client: within the credit, each answered once. */
class Asking {
  readonly #frames: Frames
  readonly #credit: number
  readonly #size: number
  readonly #open = new Map<
    number,
    { fields: Fields; resolve: (content: Buffer) => void; reject: (why: Error) => void }
  >()
  readonly #waiting: number[] = []
  #openBytes = 0
  #nextId = 1

  constructor(frames: Frames, credit: number, blockSize: number) {
    this.#frames = frames
    this.#credit = credit
    this.#size = blockSize
  }

  ask(digest: Uint8Array, level: number, index: number): Promise<Buffer> {
    const id = this.#nextId++
    const fields: Fields = [
      [1, id],
      [2, digest],
      [3, level],
      [4, index],
      [5, this.#size],
    ]
    return new Promise((resolve, reject) => {
      this.#open.set(id, { fields, resolve, reject })
      this.#waiting.push(id)
      this.#send()
    })
  }

  /** Takes answers until the server ends the stream. */
  async run(): Promise<void> {
    for (let frame = await this.#frames.next(); frame !== undefined; frame = await this.#frames.next()) {
      if (frame.kind === KIND.block) {
        this.#openBytes -= this.#size
        const id = numberOf(frame.fields, 1)
        this.#open.get(id)?.resolve(this.#wholeOf(frame))
        this.#open.delete(id)
      } else if (frame.kind === KIND.busy || frame.kind === KIND.missing) {
        const ids = varints(bytesOf(frame.fields, 1))
        this.#openBytes -= ids.length * this.#size
        if (frame.kind === KIND.busy) this.#waiting.push(...ids)
        else for (const id of ids) this.#open.get(id)?.reject(new Error(`${id} is missing`))
      }
      this.#send()
    }
    for (const { reject } of this.#open.values()) reject(new Error('the stream ended'))
  }

  #send(): void {
    while (this.#waiting.length > 0 && this.#openBytes + this.#size <= this.#credit) {
      this.#openBytes += this.#size
      this.#frames.send(KIND.want, [[1, message(this.#open.get(this.#waiting.shift()!)!.fields)]])
    }
  }

  #wholeOf({ fields, payload }: Frame): Buffer {
    const zeros = bytesOf(fields, 2)
    const whole = Buffer.alloc(this.#size)
    for (let i = 0, at = 0; i < this.#size / GRANULE; i++) {
      if (zeros.byteLength > 0 && (zeros[i >> 3]! & (1 << (i & 7))) !== 0) continue
      payload.copy(whole, i * GRANULE, at, at + GRANULE)
      at += GRANULE
    }
    return whole
  }
}

/** Ten characters of five bits each, the highest first. */
function codeOf(peerId: string): string {
  const bits = [...sha256(Buffer.from(`lab-mesh/code/1\n${peerId}`))]
    .map((byte) => byte.toString(2).padStart(8, '0'))
    .join('')
  const code = Array.from(
    { length: 10 },
    (_, i) => '0123456789ABCDEFGHJKMNPQRSTVWXYZ'[Number.parseInt(bits.slice(5 * i, 5 * i + 5), 2)],
  )
  return `${code.slice(0, 5).join('')}-${code.slice(5).join('')}`
}

function imageOf(fields: Read): Image {
  return { root: bytesOf(fields, 1), size: numberOf(fields, 2), blockSize: numberOf(fields, 3) }
}

function imageFields({ root, size, blockSize }: Image): Buffer {
  return message([
    [1, root],
    [2, size],
    [3, blockSize],
  ])
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}

/** Protobuf: numbers as varints, everything else with its length. */
function message(fields: Fields): Buffer {
  return Buffer.concat(
    fields.flatMap(([field, value]) => {
      if (typeof value === 'number') return [varint(field * 8), varint(value)]
      const bytes = Buffer.from(value as Uint8Array)
      return [varint(field * 8 + 2), varint(bytes.byteLength), bytes]
    }),
  )
}

function read(bytes: Buffer): Read {
  const fields: Read = new Map()
  for (let at = 0; at < bytes.byteLength; ) {
    const [tag, afterTag] = varintAt(bytes, at)
    const [number, afterNumber] = varintAt(bytes, afterTag)
    at = tag % 8 === 2 ? afterNumber + number : afterNumber
    const field = Math.floor(tag / 8)
    fields.set(field, [...(fields.get(field) ?? []), tag % 8 === 2 ? bytes.subarray(afterNumber, at) : number])
  }
  return fields
}

function numberOf(fields: Read, field: number): number {
  return Number(fields.get(field)?.at(-1) ?? 0)
}

function bytesOf(fields: Read, field: number): Buffer {
  return (fields.get(field)?.at(-1) as Buffer | undefined) ?? Buffer.alloc(0)
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  return Buffer.from([...bytes, rest])
}

function varints(bytes: Buffer): number[] {
  const values: number[] = []
  for (let at = 0, value = 0; at < bytes.byteLength; ) {
    ;[value, at] = varintAt(bytes, at)
    values.push(value)
  }
  return values
}

/** The number at a position, and where it ends. */
function varintAt(bytes: Buffer, start: number): [number, number] {
  let value = 0
  let unit = 1
  for (let at = start; ; at++, unit *= 128) {
    value += (bytes[at]! & 127) * unit
    if (bytes[at]! < 128) return [value, at + 1]
  }
}
