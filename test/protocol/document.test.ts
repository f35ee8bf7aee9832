import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire'
import { describe, expect, it } from 'vitest'
import { parseRoll } from '../../node/roll/roll.ts'
import { decodeMembers } from '../../node/trust/members.ts'
import { decodeLayout } from '../../protocol/disk-layout.ts'
import { readDocument } from '../../protocol/document.ts'
import { isMeshError } from '../../protocol/errors.ts'
import { decodeJoinToken } from '../../protocol/join-token.ts'
import { list, natural, nullable, object, optional, text } from '../../protocol/json-shape.ts'
import { decodeManifest } from '../../protocol/manifest.ts'
import { decodeMessage, encodeMessage } from '../../protocol/messages.ts'
import { decodeReply, decodeRequest, type Operation } from '../../protocol/operate-messages.ts'
import { publicKeyOf } from '../../protocol/peer-id.ts'
import { readReceipt } from '../../protocol/receipt.ts'
import { decodeRepeats } from '../../protocol/repeats.ts'
import { readRoll } from '../../protocol/roll-document.ts'
import { isSigned, type SignedDocument, signDocument } from '../../protocol/signed-document.ts'
import { type GrownDocument, grownSigned, grownText, KINDS } from '../support/grown-documents.ts'

const NEWER =
  /written by a newer version of mesh: format \d+, this version reads up to \d+; update mesh on this machine$/

/** What a reader makes of a document: all that is in `before` is in `after` as well, and of a newer format it says so. */
function expectGrowth<T>({ before, after, newer }: GrownDocument<T>, read: (document: T) => unknown): void {
  const known = read(before)
  expect(known).toBeDefined()
  expect(read(after)).toMatchObject(known as object)
  expect(faultOf(() => read(newer))).toMatchObject({
    code: 'FORMAT_NEWER',
    exitCode: 10,
    message: expect.stringMatching(NEWER),
  })
}

function faultOf(run: () => unknown): unknown {
  try {
    run()
  } catch (error) {
    return error
  }
  return undefined
}

const bytes = (json: string): Uint8Array => Buffer.from(json)
const operate = (json: string) => ({ type: 'operate', payload: bytes(json) }) as const
const OPERATIONS: readonly Operation[] = ['state', 'receipts', 'reset', 'roll-get', 'roll-put']

describe('a document of the version before and of one after', () => {
  it.each([
    ['manifest', (json: string) => decodeManifest(bytes(json))],
    ['member list, format 1', (json: string) => decodeMembers(bytes(json))],
    ['member list', (json: string) => decodeMembers(bytes(json))],
    ['layout of disks', (json: string) => decodeLayout(JSON.parse(json))],
    ['body of a roll document', (json: string) => parseRoll(JSON.parse(json))],
    ['join token', decodeJoinToken],
    ['list of repeats', (hex: string) => decodeRepeats(padded(hex, 4096), 4096 * 1000)],
    ...OPERATIONS.map((op) => [`operate request ${op}`, (json: string) => decodeRequest(operate(json))] as const),
    ...OPERATIONS.map((op) => [`operate answer ${op}`, (json: string) => decodeReply(op, operate(json))] as const),
  ] as const)('is read: %s', (kind, read) => {
    expectGrowth(grownText(kind), read)
  })

  it.each([
    { type: 'join-request', siteId: Buffer.alloc(32, 1), secret: Buffer.alloc(16, 2), name: 'pc07', mac: [] },
    { type: 'join-reply', site: 'main' },
    { type: 'enrol-request', siteId: Buffer.alloc(32, 1), enrol: true },
    { type: 'enrol-reply', state: 'waiting', waitMs: 2000 },
    { type: 'file-request', name: 'timestamp.json' },
  ] as const)('is a message of a stream with fields more: $type', (message) => {
    const header = encodeMessage(message)
    // The header is one field, whose number is the kind.
    const reader = new BinaryReader(header)
    const [kind] = reader.tag()
    const body = reader.bytes()
    const more = new BinaryWriter().tag(14, 2).string('of a later version').tag(13, 0).uint64(7).finish()
    const grown = new BinaryWriter()
      .tag(kind, 2)
      .bytes(Buffer.concat([more, body, more]))
      .finish()
    expect(decodeMessage(grown, new Uint8Array())).toEqual(decodeMessage(header, new Uint8Array()))
  })

  it('is an answer that says an error', () => {
    const { before, after, newer } = grownText('operate answer, error')
    for (const json of [before, after])
      expect(faultOf(() => decodeReply('state', operate(json)))).toMatchObject({ code: 'MACHINE_IN_USE' })
    expect(faultOf(() => decodeReply('state', operate(newer)))).toMatchObject({ code: 'FORMAT_NEWER' })
  })

  it.each([
    ['receipt', 'receipt', readReceipt],
    ['receipt of a failure', 'receipt', readReceipt],
    ['roll document', 'roll', readRoll],
  ] as const)('is read, and its signature holds over the text that came: %s', (kind, type, read) => {
    const document = grownSigned(kind)
    expectGrowth<SignedDocument>(document, read)
    for (const signed of Object.values(document)) expect(isSigned(type, signed)).toBe(true)
    // Nobody but who signed it can make it newer.
    const forged = { ...document.newer, signature: document.before.signature }
    expect(read(forged)).toBeUndefined()
  })

  it('says what is wrong with a key that is known', () => {
    const key = { seed: Buffer.alloc(32, 7), publicKey: publicKeyOf(grownSigned('receipt').before.by)! }
    const { text: good } = grownSigned('receipt').after
    const wrong = signDocument('receipt', good.replace('"audited":64', '"audited":-64'), key)
    expect(wrong.text).not.toBe(good)
    expect(readReceipt(wrong)).toBeUndefined()
    const shape = object({ n: natural(), of: optional(list(object({ name: nullable(text(9)) }), 3)) })
    const read = (value: unknown): unknown =>
      readDocument({ name: 'the thing', format: 2, shape, fault: 'STATE_CORRUPT' }, JSON.stringify(value))
    expect(read({ n: 1 })).toEqual({ n: 1 })
    expect(read({ format: 2, n: 1, of: [{ name: null, more: 1 }] })).toBeDefined()
    for (const [value, part] of [
      [{ n: -1 }, 'n is missing or wrong'],
      [{}, 'n is missing or wrong'],
      [{ n: 1, of: null }, 'of is missing or wrong'],
      [{ n: 1, of: [{ name: 'a' }, { name: 5 }] }, 'of[1].name is missing or wrong'],
      [{ n: 1, of: [{}, {}, {}, {}] }, 'of[0].name is missing or wrong'],
      [[], 'it is something else'],
      [null, 'it is something else'],
      [{ n: 1, format: 0 }, 'its format is no number'],
      [{ n: 1, format: '3' }, 'its format is no number'],
    ] as const)
      expect(
        faultOf(() => read(value)),
        JSON.stringify(value),
      ).toMatchObject({
        code: 'STATE_CORRUPT',
        message: `the thing is damaged: ${part}`,
      })
    const newer = faultOf(() => read({ format: 3 }))
    expect(isMeshError(newer, 'FORMAT_NEWER') && newer.message).toBe(
      'the thing was written by a newer version of mesh: format 3, this version reads up to 2; update mesh on this machine',
    )
  })

  it('is there for each kind', () => {
    expect(KINDS.length).toBeGreaterThan(30)
    expect(new Set(KINDS).size).toBe(KINDS.length)
  })
})

function padded(hex: string, size: number): Uint8Array {
  return Buffer.concat([Buffer.from(hex, 'hex'), Buffer.alloc(size)]).subarray(0, size)
}
