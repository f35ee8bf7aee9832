import { decode, encode } from 'dns-packet'
import { describe, expect, it, vi } from 'vitest'
import { decodeMdns, encodeAnswer, encodeQuestion } from '../../../node/net/mdns-message.ts'

const TAG = 'mesh-0000aaaa.local'
const ID = '12D3KooWGZoD6x5RxQjMnifReZRqtfgNm3VYR5jQab6jmYWE3pT1'

vi.mock('dns-packet', { spy: true })

describe('messages of multicast DNS', () => {
  it('ask and answer', () => {
    expect(decodeMdns(TAG, Buffer.from(encodeQuestion(TAG)))).toEqual({ type: 'question' })
    const addresses = ['/ip4/10.0.0.1/tcp/7433', '/ip6/fd00::1/tcp/7433']
    const answer = { type: 'answer', name: 'abc', peerId: ID, addresses }
    expect(decodeMdns(TAG, Buffer.from(encodeAnswer(TAG, 'abc', ID, addresses)))).toEqual(answer)
  })

  it('fit one frame', () => {
    const many = Array.from({ length: 16 }, (_, i) => `/ip6/fd00:1111:2222:3333:4444:5555:6666:${i}/tcp/7433`)
    const packet = encodeAnswer(TAG, 'a'.repeat(32), ID, many)
    expect(packet.byteLength).toBeLessThanOrEqual(1400)
    const decoded = decodeMdns(TAG, Buffer.from(packet))
    expect(decoded).toMatchObject({ addresses: many.slice(0, 7) })
  })

  it('of other programs, and junk, are not listened to', () => {
    expect(decodeMdns(TAG, Buffer.from(encodeQuestion('mesh-0000bbbb.local')))).toBeUndefined()
    expect(decodeMdns(TAG, Buffer.alloc(100, 0xff))).toBeUndefined()
    expect(decodeMdns(TAG, Buffer.alloc(0))).toBeUndefined()
    expect(decodeMdns(TAG, Buffer.from(encodeAnswer(TAG, 'abc', ID, [])))).toBeUndefined()
  })

  it('that count more records than they hold are not read', () => {
    // The library would read 131,000 records behind the end: 40 MiB and 100 ms for 19 bytes.
    const packet = Buffer.from('0000840000000003ffffff000000105f6d6573682d2d31', 'hex')
    vi.mocked(decode).mockClear()
    expect(decodeMdns(TAG, packet)).toBeUndefined()
    expect(decode).not.toHaveBeenCalled()
  })

  it('are read as libp2p writes them, with the texts among the additional records', () => {
    const full = `xyz.${TAG}`
    const data = [`dnsaddr=/ip4/10.0.0.7/tcp/1/p2p/${ID}`, 'dnsaddr=/ip4/10.0.0.8/tcp/1/p2p/12D3KooWSomebodyElse']
    const packet = encode({
      type: 'response',
      answers: [{ type: 'PTR', name: TAG, data: full }],
      additionals: [{ type: 'TXT', name: full, data }],
    })
    const answer = { type: 'answer', name: 'xyz', peerId: ID, addresses: ['/ip4/10.0.0.7/tcp/1'] }
    expect(decodeMdns(TAG, Buffer.from(packet))).toEqual(answer)
  })
})
