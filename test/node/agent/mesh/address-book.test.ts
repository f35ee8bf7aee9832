import { describe, expect, it } from 'vitest'
import { AddressBook } from '../../../../node/agent/mesh/address-book.ts'
import { SIGN_ADDRESSES_AGAIN_MS } from '../../../../node/agent/mesh/limits.ts'
import { signAddresses } from '../../../../protocol/address-record.ts'
import { ADDRESS_RECORD_MS } from '../../../../protocol/constants.ts'
import { peerIdOf } from '../../../../protocol/peer-id.ts'
import { keyOf } from '../../../support/key-of.ts'

const HERE = '/ip4/10.0.0.7/tcp/7433'
const THERE = '/ip4/10.0.0.8/tcp/7433'
const NOW = Date.UTC(2026, 10, 30)
const [self, other, liar] = [keyOf(1), keyOf(2), keyOf(3)]
const otherId = peerIdOf(other.publicKey)
const signed = (address: string, at: number, key = other) => signAddresses({ addresses: [address], at }, key)

describe('AddressBook', () => {
  it('believes what a member has signed of itself, whoever brings it, and passes it on as it is', () => {
    const [first, second, third] = [new AddressBook(self), new AddressBook(self), new AddressBook(self)]
    const record = new AddressBook(other).own([HERE])
    expect(first.hear(otherId, record)).toEqual([HERE])
    const told = first.withRecord({ id: otherId, addresses: [THERE] })
    expect(told).toEqual({ id: otherId, addresses: [THERE], record })
    expect(second.hearAll([told], () => true)).toEqual([{ id: otherId, addresses: [HERE] }])
    expect(third.hearAll([told], () => false)).toEqual([])
    expect(third.hearAll([{ id: otherId, addresses: [HERE] }], () => true)).toEqual([])
  })

  it('believes no other key, no changed text, and no record of another kind of document', () => {
    const book = new AddressBook(self, () => NOW)
    const record = signed(HERE, NOW)
    expect(book.hear(otherId, signed(HERE, NOW, liar))).toBeUndefined()
    expect(book.hear(otherId, { ...record, text: record.text.replace('10.0.0.7', '10.0.0.9') })).toBeUndefined()
    expect(book.hear(otherId, { ...record, signature: 'x' })).toBeUndefined()
    expect(book.hear('no peer id', record)).toBeUndefined()
    expect(book.recordOf(otherId)).toBeUndefined()
    expect(book.hear(otherId, record)).toEqual([HERE])
  })

  it('goes by the newest of two, so that an older one that is played again changes nothing', () => {
    const book = new AddressBook(self, () => NOW)
    const [older, newer] = [signed(HERE, NOW - 2), signed(THERE, NOW - 1)]
    expect(book.hear(otherId, older)).toEqual([HERE])
    expect(book.hear(otherId, newer)).toEqual([THERE])
    for (const again of [older, newer, signed(HERE, NOW - 1)]) expect(book.hear(otherId, again)).toBeUndefined()
    expect(book.recordOf(otherId)).toEqual(newer)
  })

  it('passes nothing on that is too old by now, or of somebody who is no member any more', () => {
    let now = NOW
    const book = new AddressBook(self, () => now)
    book.hear(otherId, signed(HERE, NOW))
    now += ADDRESS_RECORD_MS - 1
    expect(book.recordOf(otherId)).toBeDefined()
    now += 1
    expect(book.withRecord({ id: otherId, addresses: [] })).toEqual({ id: otherId, addresses: [] })
    now = NOW
    book.keep((id) => id === otherId)
    expect(book.recordOf(otherId)).toBeDefined()
    book.keep(() => false)
    expect(book.recordOf(otherId)).toBeUndefined()
  })

  it('signs its own addresses again when they change, and once a day', () => {
    let now = NOW
    const book = new AddressBook(self, () => now)
    const first = book.own([HERE])
    now += SIGN_ADDRESSES_AGAIN_MS
    expect(book.own([HERE])).toBe(first)
    const moved = book.own([THERE])
    expect(moved).not.toEqual(first)
    now += SIGN_ADDRESSES_AGAIN_MS + 1
    const again = book.own([THERE])
    expect(again.text).not.toBe(moved.text)
    const reader = new AddressBook(other, () => now)
    for (const record of [first, moved, again]) expect(reader.hear(peerIdOf(self.publicKey), record)).toHaveLength(1)
  })
})
