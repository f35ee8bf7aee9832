import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  MAX_FACT_BYTES,
  MAX_FRAME_PAYLOAD_BYTES,
  MAX_GRANULE_SET_BYTES,
  MAX_MAC_ADDRESSES,
  MAX_RUNS_PER_HAVE,
  MAX_TOLD_DISKS,
} from '../../protocol/constants.ts'
import { ENROL_STATES } from '../../protocol/enrol-messages.ts'
import { isMeshError } from '../../protocol/errors.ts'
import { encodeFrame, FrameDecoder } from '../../protocol/frames.ts'
import { decodeJoinToken, encodeJoinToken } from '../../protocol/join-token.ts'
import { keyCode, parseKeyCode } from '../../protocol/key-code.ts'
import { CODING, decodeMessage, encodeMessage, type Message } from '../../protocol/messages.ts'
import { RangeSet, type Run } from '../../protocol/ranges.ts'

const digest = fc.uint8Array({ minLength: 32, maxLength: 32 })
const uint = fc.integer({ min: 0, max: 0xffffffff })
const name = fc.string({ maxLength: 40, unit: 'grapheme' })
const versions = fc.record({ root: uint, timestamp: uint })
const held = fc.record({
  root: digest,
  size: fc.integer({ min: 1, max: 2 ** 40 }),
  blockSize: fc.constantFrom(4096, 65536, 1048576),
})
const ranges = fc
  .array(fc.tuple(fc.nat(100_000), fc.integer({ min: 1, max: 500 })), { maxLength: 20 })
  .map((list) => RangeSet.from(list.map(([start, length]): Run => [start, start + length])))
const ids = fc.array(uint, { maxLength: 20 })
const addresses = fc.array(fc.constantFrom('/ip4/10.0.0.7/tcp/7433', '/ip6/fe80::1/tcp/1'), { maxLength: 4 })
const running = fc.record({
  instance: fc.constantFrom('0123456789abcdef', 'ffffffffffffffff'),
  host: name,
  disk: name,
  mac: fc.array(fc.constantFrom('02:00:5e:10:00:01'), { maxLength: 2 }),
  addresses,
})
const record = fc.record({ text: fc.constantFrom('', '{"addresses":[],"at":1}'), signature: fc.constantFrom('', 'AA') })
const payload = fc.uint8Array({ maxLength: 300 })
const granules = fc.uint8Array({ maxLength: MAX_GRANULE_SET_BYTES })

const fact = fc.constantFrom('', 'pc-1', 'Dell Inc. OptiPlex 7010', 'ü')
const facts = fc.record({
  name: fact,
  mac: fc.array(fc.constantFrom('02:00:5e:10:00:01'), { maxLength: 2 }),
  model: fact,
  serial: fact,
  memory: fc.nat(2 ** 40),
  disks: fc.array(fc.record({ name: fact, size: fc.nat(2 ** 45), model: fact }), { maxLength: 3 }),
  disk: fact,
  holds: fact,
})

const messages: fc.Arbitrary<Message> = fc.oneof(
  fc.record({
    type: fc.constant('hello' as const),
    versionMin: fc.constant(1),
    versionMax: fc.integer({ min: 1, max: 9 }),
    siteId: digest,
    name,
    metadata: versions,
    held: fc.array(held, { maxLength: 3 }),
    creditBytes: uint,
    addresses,
    // A clock at the first millisecond of 1970 is one that does not tell.
    clock: fc.option(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), { nil: undefined }),
    running: fc.option(running, { nil: undefined }),
    twins: fc.option(fc.array(running, { minLength: 1, maxLength: 3 }), { nil: undefined }),
    record: fc.option(record, { nil: undefined }),
  }),
  fc.record({ type: fc.constant('have' as const), root: digest, gained: ranges, lost: ranges }),
  fc.record({
    type: fc.constant('fetching' as const),
    root: digest,
    level: fc.nat(5),
    claimed: ranges,
    over: fc.boolean(),
  }),
  fc.record({
    type: fc.constant('want' as const),
    requests: fc.array(
      fc.record({
        id: uint,
        digest,
        level: fc.nat(5),
        index: fc.nat(2 ** 40),
        size: fc.constantFrom(4096, 65536),
        granules,
      }),
      { maxLength: 5 },
    ),
    packFrom: uint,
  }),
  fc.record({
    type: fc.constant('block' as const),
    id: uint,
    zeros: granules,
    payload,
    coding: fc.constantFrom(CODING.plain, CODING.zstd),
    packedUs: uint,
  }),
  fc.record({ type: fc.constantFrom('missing' as const, 'cancel' as const), ids }),
  fc.record({ type: fc.constant('busy' as const), ids, retryAfterMs: uint }),
  fc.record({
    type: fc.constant('find' as const),
    id: uint,
    payload: fc.integer({ min: 1, max: 5 }).map((n) => Buffer.alloc(32 * n, n)),
  }),
  fc.record({ type: fc.constant('found' as const), id: uint, found: fc.uint8Array({ maxLength: 256 }) }),
  fc.record({ type: fc.constant('announce' as const), metadata: versions }),
  fc.record({ type: fc.constant('holds' as const), held: fc.array(held, { maxLength: 3 }) }),
  fc.record({
    type: fc.constant('peers' as const),
    peers: fc.array(fc.record({ id: name, addresses, record }, { requiredKeys: ['id', 'addresses'] }), {
      maxLength: 3,
    }),
  }),
  fc.record({
    type: fc.constant('join-request' as const),
    siteId: digest,
    secret: fc.uint8Array({ maxLength: 32 }),
    name,
    mac: fc.array(fc.constantFrom('02:00:5e:10:00:01', 'x'), { maxLength: 8 }),
    check: fc.constantFrom(true, undefined),
  }),
  fc.record({ type: fc.constant('join-reply' as const), site: name }),
  fc.record({
    type: fc.constant('join-reply' as const),
    site: name,
    role: fc.constantFrom('machine', undefined),
    checked: fc.constantFrom(true, undefined),
  }),
  fc.record({
    type: fc.constant('join-reply' as const),
    site: name,
    error: fc.record({ code: fc.constant('NAME_TAKEN'), message: name }),
  }),
  fc.record({
    type: fc.constant('enrol-request' as const),
    siteId: digest,
    facts: fc.option(facts, { nil: undefined }),
    enrol: fc.constantFrom(true, undefined),
  }),
  fc.record({
    type: fc.constant('enrol-reply' as const),
    state: fc.constantFrom(...ENROL_STATES),
    error: fc.constantFrom(undefined, { code: 'SITE_FULL', message: 'x' }),
    site: fc.constantFrom('lab', undefined),
    group: fc.constantFrom('lab-a', undefined),
    name: fc.constantFrom('pc07', undefined),
    wipe: fc.constantFrom(true, undefined),
    waitMs: fc.constantFrom(2000, undefined),
    proof: fc.constantFrom({ by: '12D3KooW', signature: 'AA' }, undefined),
    why: fc.constantFrom('its disk holds ext4', undefined),
  }),
  fc.record({ type: fc.constant('operate' as const), payload }),
  fc.record({ type: fc.constant('file-request' as const), name }),
  fc.record({ type: fc.constant('file-reply' as const), found: fc.boolean(), payload }),
)

/** Plain values only, so that buffers and sets compare by content. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  if (value instanceof RangeSet) return [...value.runs()]
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]))
}

const violates = (run: () => unknown): boolean => {
  try {
    run()
    return false
  } catch (error) {
    if (!isMeshError(error, 'PROTOCOL_VIOLATION')) throw error
    return true
  }
}

describe('messages', () => {
  it('survive encoding and any cutting into chunks', () => {
    fc.assert(
      fc.property(
        fc.array(messages, { maxLength: 6 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 200 })),
        (list, cuts) => {
          const bytes = Buffer.concat(list.flatMap((message) => encodeFrame(message)))
          const decoder = new FrameDecoder()
          const got: Message[] = []
          for (let at = 0; at < bytes.byteLength; ) {
            const length = cuts.next().value as number
            got.push(...decoder.push(bytes.subarray(at, at + length)))
            at += length
          }
          expect(decoder.atBoundary).toBe(true)
          expect(got.map(plain)).toEqual(list.map(plain))
        },
      ),
    )
  })

  it('have the golden bytes', () => {
    const vectors = JSON.parse(readFileSync(join(import.meta.dirname, '../vectors/messages.json'), 'utf8')) as {
      frames: { type: string; hex: string }[]
    }
    const seen = new Set<string>()
    for (const { type, hex } of vectors.frames) {
      const [message] = new FrameDecoder().push(Buffer.from(hex, 'hex'))
      expect(message?.type).toBe(type)
      expect(Buffer.concat(encodeFrame(message!)).toString('hex')).toBe(hex)
      seen.add(type)
    }
    expect(seen.size).toBe(20)
  })

  it('are refused with a typed error when bytes are anything else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        violates(() => decodeMessage(bytes, new Uint8Array()))
        violates(() => new FrameDecoder().push(bytes))
      }),
      { numRuns: 2000 },
    )
  })

  it('are refused with a typed error when valid ones are damaged', () => {
    fc.assert(
      fc.property(messages, fc.nat(), fc.integer({ min: 1, max: 255 }), (message, where, flip) => {
        const header = Buffer.from(encodeMessage(message))
        if (header.byteLength === 0) return
        header[where % header.byteLength]! ^= flip
        violates(() => decodeMessage(header, new Uint8Array()))
      }),
      { numRuns: 2000 },
    )
  })

  it('are refused before a buffer is made when a frame is too long', () => {
    const prefix = Buffer.alloc(8)
    prefix.writeUInt32BE(10, 0)
    prefix.writeUInt32BE(MAX_FRAME_PAYLOAD_BYTES + 1, 4)
    expect(violates(() => new FrameDecoder().push(prefix))).toBe(true)
    prefix.writeUInt32BE(0xffffffff, 0)
    prefix.writeUInt32BE(0, 4)
    expect(violates(() => new FrameDecoder().push(prefix))).toBe(true)
  })

  it('are read as the document says, whoever wrote them', () => {
    const nothing = new Uint8Array()
    const decode = (hex: string): Message => decodeMessage(Buffer.from(hex.replaceAll(' ', ''), 'hex'), nothing)
    // Of a number, and of a message with other fields in it, the last one counts.
    expect(decode('42 08 0a 02 08 07 0a 02 10 09')).toEqual({ type: 'announce', metadata: { root: 0, timestamp: 9 } })
    expect(decode('3a 07 0a 01 05 10 01 10 02')).toEqual({ type: 'busy', ids: [5], retryAfterMs: 2 })
    // Several packed lists are one; a number of its own is none.
    expect(decode('32 07 0a 02 05 06 0a 01 07')).toEqual({ type: 'cancel', ids: [5, 6, 7] })
    expect(violates(() => decode('32 02 08 05'))).toBe(true)
    // Runs are bare varints in a field; the last field of them counts.
    const root = '01'.repeat(32)
    const have = (fields: string): Run[][] => {
      const length = (34 + fields.replaceAll(' ', '').length / 2).toString(16)
      const message = decode(`12 ${length} 0a20${root} ${fields}`)
      return message.type === 'have' ? [message.gained, message.lost].map((set) => [...set.runs()]) : []
    }
    expect(have('12 04 03020401 1a 02 0001')).toEqual([
      [
        [3, 5],
        [9, 10],
      ],
      [[0, 1]],
    ])
    expect(have('12 02 0302 12 02 0901')).toEqual([[[9, 10]], []])
    expect(violates(() => have('12 02 0300'))).toBe(true)
  })

  it('are refused when a list or a range is beyond its limit', () => {
    const gained = RangeSet.from(Array.from({ length: MAX_RUNS_PER_HAVE + 1 }, (_, i): Run => [2 * i, 2 * i + 1]))
    const root = new Uint8Array(32)
    const header = encodeMessage({ type: 'have', root, gained, lost: RangeSet.empty })
    expect(violates(() => decodeMessage(header, new Uint8Array()))).toBe(true)
    const far = encodeMessage({ type: 'have', root, gained: RangeSet.of(2 ** 50, 2 ** 50 + 1), lost: RangeSet.empty })
    expect(violates(() => decodeMessage(far, new Uint8Array()))).toBe(true)
    const block = encodeMessage({ type: 'announce', metadata: { root: 1, timestamp: 1 } })
    expect(violates(() => decodeMessage(block, new Uint8Array(1)))).toBe(true)
  })
})

describe('the code of a key', () => {
  it('has 50 bits of its SHA-256, and is read as people type it', () => {
    const id = '12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5'
    const code = keyCode(id)
    expect(code).toBe('3NM23-F4WD3')
    for (const typed of [
      code,
      code.toLowerCase(),
      code.replace('-', ' '),
      code.replaceAll('0', 'o').replaceAll('1', 'l'),
    ])
      expect(parseKeyCode(typed)).toBe(code)
    for (const wrong of ['', '12345', `${code}0`, code.replace(/.$/, 'U'), 'pc-07'])
      expect(parseKeyCode(wrong)).toBeUndefined()
  })
})

describe('what a machine says of itself', () => {
  it('is refused if a text is too long, or would do something to a terminal', () => {
    const of = (over: object): Uint8Array =>
      encodeMessage({
        type: 'enrol-request',
        siteId: Buffer.alloc(32, 1),
        facts: { name: 'pc07', mac: [], model: '', serial: '', memory: 0, disks: [], disk: '', holds: '', ...over },
      })
    const refused = (over: object): boolean => violates(() => decodeMessage(of(over), new Uint8Array()))
    expect(refused({})).toBe(false)
    expect(refused({ model: 'x'.repeat(MAX_FACT_BYTES) })).toBe(false)
    const disk = { name: 'sda', size: 1, model: '' }
    for (const over of [
      { model: 'x'.repeat(MAX_FACT_BYTES + 1) },
      { serial: '\u001b[2J' },
      { name: 'a\nb' },
      { holds: '\u202egpj' },
      { mac: Array(MAX_MAC_ADDRESSES + 1).fill('02:00:5e:10:00:01') },
      { disks: Array(MAX_TOLD_DISKS + 1).fill(disk) },
      { disks: [{ ...disk, model: '\u0007' }] },
    ])
      expect(refused(over), JSON.stringify(over)).toBe(true)
  })
})

describe('join token', () => {
  const token = {
    siteId: Buffer.alloc(32, 7),
    peerId: '12D3KooWGEv4XM1ztGS9C1pX2bgaqHGAXcC3PZe81EsZ8i12LU2e',
    addresses: ['/ip4/192.0.2.1/tcp/7433'],
    secret: Buffer.alloc(16, 9),
    issuedAt: 1_800_000_000_000,
    expiresAt: 1_800_003_600_000,
  }

  it('survives encoding, also with white space around it', () => {
    const text = encodeJoinToken(token)
    expect(text.length).toBeLessThan(240)
    expect(plain(decodeJoinToken(` ${text}\n`))).toEqual(plain(token))
  })

  it('is refused when any character is missing or changed', () => {
    const text = encodeJoinToken(token)
    const bad = [text.slice(0, -1), text.slice(0, 40), text.slice(5), '', 'mesh-', `${text}A`]
    for (let at = 5; at < text.length - 1; at += 7)
      bad.push(`${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`)
    for (const wrong of bad) {
      let code = ''
      try {
        decodeJoinToken(wrong)
      } catch (error) {
        code = isMeshError(error) ? error.code : String(error)
      }
      expect(code, wrong).toBe('TOKEN_INVALID')
    }
  })
})
