import { type Answer, AUTHORITATIVE_ANSWER, decode, encode } from 'dns-packet'
import { MAX_ADDRESSES_PER_PEER } from '../../protocol/constants.ts'

/** Bytes that go into one Ethernet frame. */
const MAX_PACKET_BYTES = 1_400
/** Bytes of the header of DNS, and the least that a question and a record take: the name of the root has one byte. */
const HEADER_BYTES = 12
const MIN_QUESTION_BYTES = 5
const MIN_RECORD_BYTES = 11
const TTL_SECONDS = 120
const ADDRESS = 'dnsaddr='

/** What a packet of multicast DNS says of the nodes of a site. */
type MdnsMessage =
  | { readonly type: 'question' }
  | { readonly type: 'answer'; readonly name: string; readonly peerId: string; readonly addresses: string[] }

/** Asks who there is (https://github.com/libp2p/specs/blob/master/discovery/mdns.md). */
export function encodeQuestion(serviceTag: string): Uint8Array {
  return encode({ type: 'query', questions: [{ name: serviceTag, type: 'PTR' }] })
}

/** Says where a node is; as many of its addresses as one frame takes. `name`: a random one, by which the node knows itself. */
export function encodeAnswer(
  serviceTag: string,
  name: string,
  peerId: string,
  addresses: readonly string[],
): Uint8Array {
  const full = `${name}.${serviceTag}`
  const answers: Answer[] = [{ name: serviceTag, type: 'PTR', class: 'IN', ttl: TTL_SECONDS, data: full }]
  const packet = (): Uint8Array => encode({ type: 'response', flags: AUTHORITATIVE_ANSWER, answers })
  let whole = packet()
  for (const address of addresses.slice(0, MAX_ADDRESSES_PER_PEER)) {
    const data = `${ADDRESS}${address}/p2p/${peerId}`
    // A text of DNS has at most 255 bytes.
    if (Buffer.byteLength(data) > 255) continue
    answers.push({ name: full, type: 'TXT', class: 'IN', ttl: TTL_SECONDS, data })
    const longer = packet()
    if (longer.byteLength > MAX_PACKET_BYTES) break
    whole = longer
  }
  return whole
}

/** Reads a packet that anybody may have sent; undefined if it is not about this service. */
export function decodeMdns(serviceTag: string, data: Buffer): MdnsMessage | undefined {
  const packet = decodePacket(data)
  if (packet === undefined) return undefined
  if (packet.type === 'query') {
    return packet.questions?.some(({ name }) => name === serviceTag) === true ? { type: 'question' } : undefined
  }
  const pointer = packet.answers?.find((answer) => answer.type === 'PTR' && answer.name === serviceTag)
  if (pointer?.type !== 'PTR') return undefined
  const texts = [...(packet.answers ?? []), ...(packet.additionals ?? [])].flatMap((answer) =>
    answer.type === 'TXT' ? [answer.data].flat().map(String) : [],
  )
  const found = texts.flatMap((text) => {
    const [, address, peerId] = /^dnsaddr=(\/.+)\/p2p\/(\w+)$/.exec(text) ?? []
    return address === undefined || peerId === undefined ? [] : [{ address, peerId }]
  })
  const [first] = found
  if (first === undefined) return undefined
  const addresses = found.filter(({ peerId }) => peerId === first.peerId).map(({ address }) => address)
  const name = pointer.data.split('.')[0]!
  return { type: 'answer', name, peerId: first.peerId, addresses: addresses.slice(0, MAX_ADDRESSES_PER_PEER) }
}

function decodePacket(data: Buffer): ReturnType<typeof decode> | undefined {
  if (!holdsWhatItCounts(data)) return undefined
  try {
    return decode(data)
  } catch {
    return undefined
  }
}

/**
 * Whether a packet is long enough for as many questions and records as its header counts (RFC 1035, section 4.1). The library reads
 * behind the end: 19 bytes that count 131,000 records took 40 MiB and 100 ms.
 */
function holdsWhatItCounts(data: Buffer): boolean {
  if (data.byteLength < HEADER_BYTES) return false
  const [questions, ...records] = [4, 6, 8, 10].map((at) => data.readUInt16BE(at))
  const counted = records.reduce((sum, count) => sum + count * MIN_RECORD_BYTES, questions! * MIN_QUESTION_BYTES)
  return HEADER_BYTES + counted <= data.byteLength
}
