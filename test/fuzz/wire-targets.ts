import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeMdns, encodeAnswer, encodeQuestion } from '../../node/net/mdns-message.ts'
import { decodeMembers, decodeRemoved, encodeMembers } from '../../node/trust/members.ts'
import { readAddresses } from '../../protocol/address-record.ts'
import { ADDRESS_RECORD_MS, MAX_ADDRESSES_PER_PEER } from '../../protocol/constants.ts'
import { digestOf } from '../../protocol/digest.ts'
import { encodeFrame, FrameDecoder } from '../../protocol/frames.ts'
import { decodeGranules, encodeGranules } from '../../protocol/granules.ts'
import { decodeJoinToken, encodeJoinToken } from '../../protocol/join-token.ts'
import { decodeManifest, encodeManifest } from '../../protocol/manifest.ts'
import { decodeMessage, encodeMessage, type Message } from '../../protocol/messages.ts'
import { decodeReply, decodeRequest, encodeRequest } from '../../protocol/operate-messages.ts'
import { readReceipt } from '../../protocol/receipt.ts'
import { decodeRepeats, encodeRepeats } from '../../protocol/repeats.ts'
import { readRoll } from '../../protocol/roll-document.ts'
import { type SignedDocument, signDocument } from '../../protocol/signed-document.ts'
import { GOLDEN_KEY } from '../support/key-of.ts'
import type { Target } from './target.ts'

/** When the golden addresses were signed. */
const SIGNED_AT = Date.UTC(2026, 10, 30)
const VECTORS = join(import.meta.dirname, '../vectors')
const vector = (name: string): Buffer => readFileSync(join(VECTORS, name))
const json = <T>(name: string): T => JSON.parse(vector(name).toString()) as T

const frames = (): Buffer[] =>
  json<{ frames: { hex: string }[] }>('messages.json').frames.map(({ hex }) => Buffer.from(hex, 'hex'))
const signed = (name: string): Buffer[] =>
  [json<{ signed: SignedDocument | SignedDocument[] }>(name).signed].flat().map(({ text }) => Buffer.from(text))

/** A message must come out of its own encoding as it went in. */
function assertComesBack(message: Message): void {
  const payload = 'payload' in message ? message.payload : new Uint8Array()
  assert.deepEqual(decodeMessage(encodeMessage(message), payload), message)
}

const frame: Target = {
  name: 'frame',
  errors: ['PROTOCOL_VIOLATION'],
  seeds: () => [...frames(), Buffer.concat(frames())],
  run(input) {
    const whole = new FrameDecoder().push(input)
    for (const message of whole) assertComesBack(message)
    // However it arrives, it says the same.
    const decoder = new FrameDecoder()
    const pieces: Message[] = []
    for (let at = 0, width = 1; at < input.byteLength; at += width, width = (width * 3) % 97)
      pieces.push(...decoder.push(input.subarray(at, at + width)))
    assert.deepEqual(pieces, whole)
    return whole.length > 0
  },
}

const message: Target = {
  name: 'message',
  errors: ['PROTOCOL_VIOLATION'],
  seeds: () =>
    frames()
      .map((bytes) => (bytes.subarray(4, 8).equals(Buffer.alloc(4)) ? bytes.subarray(8) : Buffer.alloc(0)))
      .filter((bytes) => bytes.byteLength > 0),
  run(input) {
    const decoded = decodeMessage(input, new Uint8Array())
    assertComesBack(decoded)
    // A header that breaks no limit fits into a frame again.
    encodeFrame(decoded)
  },
}

const token: Target = {
  name: 'token',
  errors: ['TOKEN_INVALID', 'FORMAT_NEWER'],
  seeds: () => [
    bodyOf(
      encodeJoinToken({
        siteId: Buffer.alloc(32, 1),
        peerId: 'p',
        addresses: ['/ip4/10.0.0.1/tcp/1'],
        secret: Buffer.alloc(16, 2),
        issuedAt: 1,
        expiresAt: 2,
      }),
    ),
  ],
  run(input) {
    const text = `mesh-${Buffer.concat([digestOf(input).subarray(0, 4), input]).toString('base64url')}`
    const decoded = decodeJoinToken(text)
    assert(decoded.addresses.length <= MAX_ADDRESSES_PER_PEER)
    assert.deepEqual(decodeJoinToken(encodeJoinToken(decoded)), decoded)
  },
}

function bodyOf(text: string): Buffer {
  return Buffer.from(text.slice('mesh-'.length), 'base64url').subarray(4)
}

const manifest: Target = {
  name: 'manifest',
  errors: ['MANIFEST_INVALID', 'FORMAT_NEWER'],
  seeds: () => [vector('manifest.json'), vector('manifest-of-disk.json')],
  run(input) {
    const decoded = decodeManifest(input)
    const encoded = encodeManifest(decoded)
    assert.deepEqual(decodeManifest(encoded), decoded)
    assert.deepEqual(encodeManifest(decodeManifest(encoded)), encoded)
  },
}

const members: Target = {
  name: 'members',
  errors: ['METADATA_INVALID', 'FORMAT_NEWER'],
  seeds: () => [vector('members-1.json'), vector('members-2.json')],
  run(input) {
    const [list, removed] = [decodeMembers(input), decodeRemoved(input)]
    const encoded = encodeMembers(list, removed)
    assert.deepEqual(decodeMembers(encoded), list)
    assert.deepEqual(decodeRemoved(encoded), removed)
  },
}

const receipt: Target = {
  name: 'receipt',
  errors: ['FORMAT_NEWER'],
  seeds: () => signed('signed-receipt.json'),
  run(input) {
    const document = signDocument('receipt', input.toString(), GOLDEN_KEY)
    // Nobody takes one kind of document for another one.
    assert.equal(readRoll(document), undefined)
    assert.equal(readReceipt({ ...document, text: `${document.text} ` }), undefined)
    return readReceipt(document) !== undefined
  },
}

const roll: Target = {
  name: 'roll',
  errors: ['FORMAT_NEWER'],
  seeds: () => signed('signed-roll.json'),
  run(input) {
    const document = signDocument('roll', input.toString(), GOLDEN_KEY)
    assert.equal(readReceipt(document), undefined)
    return readRoll(document) !== undefined
  },
}

/** Addresses that a machine has signed. No other kind of document is taken for them, nor they for one. */
const addresses: Target = {
  name: 'signed-addresses',
  errors: ['FORMAT_NEWER'],
  seeds: () => [Buffer.from(json<{ text: string }>('signed-addresses.json').text)],
  run(input) {
    const text = input.toString()
    const { by, ...record } = signDocument('addresses', text, GOLDEN_KEY)
    assert.equal(readReceipt({ by, ...record }), undefined)
    assert.equal(readAddresses(by, signDocument('roll', text, GOLDEN_KEY), SIGNED_AT), undefined)
    const read = readAddresses(by, record, SIGNED_AT)
    if (read === undefined) return false
    assert(read.addresses.length <= MAX_ADDRESSES_PER_PEER)
    assert(Math.abs(read.at - SIGNED_AT) <= ADDRESS_RECORD_MS)
    return true
  },
}

const REPEATS_PAGE = 4096
const REPEATS_IMAGE = 2 ** 30

const repeats: Target = {
  name: 'repeats',
  errors: ['PROTOCOL_VIOLATION', 'FORMAT_NEWER'],
  seeds: () => [
    encodeRepeats([], REPEATS_PAGE),
    encodeRepeats(
      [
        { to: 40, from: 3, count: 2 },
        { to: 900, from: 40, count: 200 },
        { to: 200_000, from: 1, count: 1 },
      ],
      REPEATS_PAGE,
    ),
  ],
  run(input) {
    const decoded = decodeRepeats(input, REPEATS_IMAGE)
    let end = 0
    for (const { to, from, count } of decoded) {
      assert(to >= end && from + count <= to && to + count <= REPEATS_IMAGE / 4096)
      end = to + count
    }
    assert.deepEqual(decodeRepeats(encodeRepeats(decoded, 2 ** 20), REPEATS_IMAGE), decoded)
  },
}

const granules: Target = {
  name: 'granules',
  errors: ['PROTOCOL_VIOLATION'],
  seeds: () => [Buffer.of(1, 0x80), Buffer.of(0xff, 0xff)],
  run(input) {
    const decoded = decodeGranules(input, 65_536)
    assert.deepEqual(decodeGranules(encodeGranules(decoded), 65_536), decoded)
  },
}

const operate: Target = {
  name: 'operate',
  errors: ['PROTOCOL_VIOLATION', 'FORMAT_NEWER'],
  seeds: () => [
    encodeRequest({ op: 'state' }).payload,
    encodeRequest({ op: 'receipts', since: 3 }).payload,
    encodeRequest({ op: 'roll-get', group: 'lab-a' }).payload,
    encodeRequest({ op: 'reset', roll: 'r', epoch: 1, warningSeconds: 60, evenInUse: false }).payload,
  ],
  run(input) {
    const request = decodeRequest({ type: 'operate', payload: input })
    // As JSON: what a later version has added may be a number that JSON writes as null.
    assert.equal(JSON.stringify(decodeRequest(encodeRequest(request))), JSON.stringify(request))
  },
}

const operateReply: Target = {
  name: 'operate-reply',
  errors: ['PROTOCOL_VIOLATION', 'FORMAT_NEWER', 'USAGE'],
  seeds: () =>
    [
      '{"ok":{"number":3}}',
      '{"ok":{"receipts":[],"more":false}}',
      '{"ok":{"granted":true}}',
      '{"error":{"code":"USAGE","message":"no"}}',
    ].map((text) => Buffer.from(text)),
  takesSeeds: false,
  run(input) {
    for (const op of ['state', 'receipts', 'seen', 'reset', 'roll-get', 'roll-put'] as const) {
      try {
        decodeReply(op, { type: 'operate', payload: input })
        return true
      } catch (error) {
        if ((error as { code?: string }).code !== 'PROTOCOL_VIOLATION') throw error
      }
    }
    return false
  },
}

const TAG = '_mesh-0123456789._udp.local'

const mdns: Target = {
  name: 'mdns',
  errors: [],
  seeds: () => [
    encodeQuestion(TAG),
    encodeAnswer(TAG, 'abcdef', '12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7', [
      '/ip4/10.0.0.1/tcp/7433',
      '/ip6/fe80::1/tcp/1',
    ]),
  ],
  run: (input) => decodeMdns(TAG, input) !== undefined,
}

export const WIRE_TARGETS: readonly Target[] = [
  frame,
  message,
  token,
  manifest,
  members,
  receipt,
  roll,
  addresses,
  repeats,
  granules,
  operate,
  operateReply,
  mdns,
]
