import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { parseArgs } from 'node:util'

/**
 * A program that asks as the PXE ROM of a network card, or iPXE, or UEFI HTTP boot does, and prints every answer as a line of JSON. It runs until it is ended.
 * With `--server` it asks the boot server there, port 4011, as a ROM does that has its address already.
 */
const { values } = parseArgs({
  options: {
    mac: { type: 'string', default: '52:54:00:00:00:01' },
    /** Option 93: 0 BIOS, 7 UEFI, 16 UEFI by HTTP. */
    arch: { type: 'string', default: '7' },
    vendor: { type: 'string', default: 'PXEClient' },
    ipxe: { type: 'boolean', default: false },
    server: { type: 'string' },
    address: { type: 'string', default: '0.0.0.0' },
  },
})
const DISCOVER = 1
const REQUEST = 3
const COOKIE = [0x63, 0x82, 0x53, 0x63]
const OPTIONS_AT = 240
const arch = Number(values.arch)
const id = randomBytes(4)
const mac = Buffer.from(values.mac.replaceAll(':', ''), 'hex')

function option(code: number, ...bytes: number[]): number[] {
  return [code, bytes.length, ...bytes]
}

function question(): Buffer {
  const head = Buffer.alloc(OPTIONS_AT)
  head.set([1, 1, 6, 0])
  head.set(id, 4)
  head.writeUInt16BE(0x8000, 10)
  head.set(values.address.split('.').map(Number), 12)
  head.set(mac, 28)
  head.set(COOKIE, 236)
  const vendor = `${values.vendor}:Arch:${String(arch).padStart(5, '0')}:UNDI:003016`
  const options = [
    ...option(53, values.server === undefined ? DISCOVER : REQUEST),
    ...option(55, 1, 3, 6, 15, 43, 54, 60, 66, 67, 97),
    ...option(57, 5, 0xc0),
    ...option(60, ...Buffer.from(vendor)),
    ...option(93, arch >> 8, arch & 0xff),
    ...option(94, 1, 3, 16),
    ...option(97, 0, ...Buffer.alloc(10), ...mac),
    // BIOS names the item of the boot menu that was chosen: the only one.
    ...(values.server === undefined || arch !== 0 ? [] : option(43, 71, 4, 0x80, 0, 0, 0, 255)),
    ...(values.ipxe ? [...option(77, ...Buffer.from('iPXE')), ...option(175, 19, 1, 1)] : []),
    255,
  ]
  return Buffer.concat([head, Buffer.from(options)])
}

function read(answer: Buffer): Readonly<Record<string, string>> {
  const found: Record<string, string> = {}
  const text = (from: number, to: number): string => answer.toString('latin1', from, to).replace(/\0.*$/s, '')
  for (let at = OPTIONS_AT; at < answer.length && answer[at] !== 255; ) {
    const length = answer[at] === 0 ? -1 : answer[at + 1]!
    if (length >= 0) found[`option${answer[at]}`] = answer.toString('latin1', at + 2, at + 2 + length)
    at += 2 + length
  }
  return {
    ...found,
    mac: answer.toString('hex', 28, 34).replaceAll(/(..)(?=.)/g, '$1:'),
    yours: [...answer.subarray(16, 20)].join('.'),
    next: [...answer.subarray(20, 24)].join('.'),
    file: found.option67?.replace(/\0$/, '') ?? text(108, 236),
  }
}

const socket = createSocket({ type: 'udp4', reuseAddr: true })
socket.on('message', (answer, { address, port }) => {
  if (answer.length > OPTIONS_AT && answer.subarray(4, 8).equals(id))
    console.log(JSON.stringify({ from: address, port, ...read(answer) }))
})
socket.bind(68, () => {
  socket.setBroadcast(true)
  const ask = (): void => {
    if (values.server === undefined) socket.send(question(), 67, '255.255.255.255')
    else socket.send(question(), 4011, values.server)
  }
  ask()
  setInterval(ask, 1000)
})
