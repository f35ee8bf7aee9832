import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readAddresses, signAddresses } from '../../protocol/address-record.ts'
import {
  ADDRESS_RECORD_MS,
  CLOCK_TOLERANCE_MS,
  MAX_ADDRESS_RECORD_BYTES,
  MAX_ADDRESSES_PER_PEER,
} from '../../protocol/constants.ts'
import { peerIdOf } from '../../protocol/peer-id.ts'
import { signDocument } from '../../protocol/signed-document.ts'
import { GOLDEN_KEY } from '../support/key-of.ts'

const AT = Date.UTC(2026, 10, 30)
const key = GOLDEN_KEY
const id = peerIdOf(key.publicKey)
const address = '/ip4/192.0.2.7/tcp/7433'

describe('addresses that a machine has signed', () => {
  it('have the golden bytes', () => {
    const golden = JSON.parse(readFileSync(join(import.meta.dirname, '../vectors/signed-addresses.json'), 'utf8')) as {
      by: string
      text: string
      signature: string
    }
    const { text, signature } = golden
    expect(golden.by).toBe(id)
    expect(signAddresses({ addresses: [address], at: AT }, key)).toEqual({ text, signature })
    expect(readAddresses(id, { text, signature }, AT)).toEqual({ addresses: [address], at: AT })
  })

  it('count for 30 days, and not if they are from the future by more than clocks may differ', () => {
    const record = signAddresses({ addresses: [address], at: AT }, key)
    for (const [now, counts] of [
      [AT + ADDRESS_RECORD_MS, true],
      [AT + ADDRESS_RECORD_MS + 1, false],
      [AT - CLOCK_TOLERANCE_MS, true],
      [AT - CLOCK_TOLERANCE_MS - 1, false],
    ] as const)
      expect(readAddresses(id, record, now) !== undefined, String(now - AT)).toBe(counts)
  })

  it('are at most 16, and at most 4 KiB', () => {
    const long = Array.from({ length: 20 }, (_, i) => `/dns4/${'a'.repeat(400)}${i}/tcp/7433`)
    const read = readAddresses(id, signAddresses({ addresses: long, at: AT }, key), AT)!
    expect(read.addresses).toEqual(long.slice(0, read.addresses.length))
    expect(read.addresses.length).toBe(Math.floor((MAX_ADDRESS_RECORD_BYTES - 40) / 424))
    const many = Array.from({ length: MAX_ADDRESSES_PER_PEER + 1 }, (_, i) => `/ip4/192.0.2.${i}/tcp/7433`)
    expect(readAddresses(id, signAddresses({ addresses: many, at: AT }, key), AT)?.addresses).toHaveLength(16)
    const signed = signDocument('addresses', JSON.stringify({ addresses: many, at: AT }), key)
    expect(readAddresses(id, signed, AT)).toBeUndefined()
  })

  it('grow as other documents do, and are not taken for one of another kind', () => {
    const read = (kind: 'addresses' | 'receipt', content: object) =>
      readAddresses(id, signDocument(kind, JSON.stringify({ addresses: [address], at: AT, ...content }), key), AT)
    expect(read('addresses', { weight: 7 })).toMatchObject({ addresses: [address] })
    expect(read('receipt', {})).toBeUndefined()
    expect(read('addresses', { at: -1 })).toBeUndefined()
    expect(() => read('addresses', { format: 2 })).toThrow(/newer version/)
  })
})
