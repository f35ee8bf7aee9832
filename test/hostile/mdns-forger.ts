import { randomBytes, randomInt } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { encodeAnswer } from '../../node/net/mdns-message.ts'
import { Multicast, multicastPlaces } from '../../node/net/multicast.ts'
import { ownAddresses } from '../../node/net/own-addresses.ts'

/** Somebody on the network who is no member, and answers for members and for invented ones: `mdns-forger.ts TAG ID…`. */
const [tag = '', ...members] = process.argv.slice(2)
const PACKETS = 5
const PAUSE_MS = 10

const places = multicastPlaces(ownAddresses()).filter(({ family }) => family === 'ip4')
const multicast = await Multicast.open('ip4', places, () => undefined)
const here =
  places.length === 0
    ? ''
    : ownAddresses().find(({ card, family }) => card === places[0]!.card && family === 'ip4')!.address
process.stdout.write('ready\n')
for (;;) {
  for (let i = 0; i < PACKETS; i++) {
    const id = i < members.length ? members[i]! : `12D3KooW${randomBytes(22).toString('hex')}`
    // Half of them are of its own subnet, where a closed port answers at once.
    const addresses = Array.from(
      { length: 16 },
      (_, n) => `/ip4/${n % 2 === 0 ? here : '203.0.113.7'}/tcp/${randomInt(1024, 65536)}`,
    )
    for (const place of places) multicast.send(encodeAnswer(tag, randomBytes(16).toString('hex'), id, addresses), place)
  }
  await sleep(PAUSE_MS)
}
