import assert from 'node:assert/strict'
import { crc32 } from 'node:zlib'
import { getStaticTOMLValue, parseTOML } from 'toml-eslint-parser'
import { readLease } from '../../node/agent/boot/agent-network.ts'
import { currentSlot, parseBootMenu } from '../../node/agent/boot/firmware.ts'
import { gptPartitions, type ReadBytes, readGpt } from '../../node/disk/gpt.ts'
import { partitionUuid } from '../../node/disk/partition-table.ts'
import { parseNbdUri } from '../../node/nbd/nbd-uri.ts'
import { parseEraBlocks } from '../../node/writelog/era-blocks.ts'
import { type LogContents, readLog } from '../../node/writelog/log-file.ts'
import {
  BITS_PER_SECTOR,
  decodeHeader,
  encodeHeader,
  judgeSector,
  LogLayout,
  SECTOR_BYTES,
  sealSector,
} from '../../node/writelog/log-layout.ts'
import { parseBitRate } from '../../protocol/bit-rate.ts'
import { parseDayWindow } from '../../protocol/day-window.ts'
import { decodeLayout, encodeLayout } from '../../protocol/disk-layout.ts'
import { parseKeyCode } from '../../protocol/key-code.ts'
import { parseUplinkRule } from '../../protocol/uplink-rule.ts'
import { parseConfig } from '../../tools/cli/config/config-file.ts'
import { parseMachineList } from '../../tools/cli/machine-list.ts'
import { FaultyDevice } from '../fakes/faulty-device.ts'
import { gptBytes } from '../support/gpt.ts'
import type { Target } from './target.ts'

const texts = (...all: string[]): Buffer[] => all.map((text) => Buffer.from(text))

const config: Target = {
  name: 'config',
  errors: ['CONFIG_INVALID'],
  seeds: () =>
    texts(
      'state = "/var/lib/lab-mesh"\nlisten = "/ip4/0.0.0.0/tcp/7433"\n',
      '[boot]\non-failure = "start"\ndisk = "/dev/sda"\n[serve]\nrate = "100 Mbit/s"\n',
      "# a\nstate = 'x'\nlist = [1, 2.5, true, 1979-05-27T07:32:00Z]\n[a.b]\nc = { d = 1 }\n[[e]]\n",
    ),
  takesSeeds: false,
  run: (input) => parseConfig('mesh.toml', input.toString()),
}

const layout: Target = {
  name: 'layout',
  errors: ['LAYOUT_INVALID', 'FORMAT_NEWER'],
  seeds: () =>
    texts(
      'format = 2\nesp = 536870912\nstate = 1073741824\n[[partitions]]\nimage = "win"\nlabel = "win"\ntype = "0fc63daf-8483-4772-8e79-3d69d8477de4"\nsize = 1073741824\ngrow = true\n',
    ),
  takesSeeds: false,
  run(input) {
    let value: unknown
    try {
      value = getStaticTOMLValue(parseTOML(input.toString(), { tomlVersion: '1.0' }))
    } catch (error) {
      if (error instanceof SyntaxError) return false
      throw error
    }
    const decoded = decodeLayout(value)
    assert.deepEqual(decodeLayout(JSON.parse(JSON.stringify(encodeLayout(decoded)))), decoded)
    return true
  },
}

const machines: Target = {
  name: 'machines',
  errors: ['USAGE'],
  seeds: () =>
    texts(
      'mac,name,group\n02:00:5e:10:00:01,pc1,lab-a\n02-00-5E-10-00-02;pc2\n',
      '"0200.5e10.0001","pc ""1""",a\r\n# x\r\n02005E100001\tpc3\tb\r\n',
      '02:00:5e:10:00:01,pc1\n',
    ),
  takesSeeds: false,
  run(input) {
    for (const { mac, name } of parseMachineList('list.csv', input.toString())) {
      assert.match(mac, /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/)
      assert.doesNotMatch(name, /\p{C}/u)
    }
  },
}

/** The beginning of a disk. The checksums of its tables are made right, so that what they protect is read. */
const gpt: Target = {
  name: 'gpt',
  errors: [],
  seeds: () => [
    gptBytes(
      [
        { uuid: '12345678-1234-4234-8234-123456789abc', first: 34, last: 99 },
        { uuid: '22345678-1234-4234-8234-123456789abc', first: 100, last: 999 },
      ],
      { sectors: 2048 },
    ).subarray(0, 2048),
  ],
  async run(input) {
    const disk = Buffer.from(input)
    if (disk.byteLength >= 604) {
      disk.writeUInt32LE(0, 528)
      disk.writeUInt32LE(crc32(disk.subarray(512, 604)), 528)
    }
    let asked = 0
    const read: ReadBytes = async (offset, length) => {
      asked += length
      assert(asked < 16 * 1024 * 1024, 'reads more than 16 MiB')
      const bytes = Buffer.alloc(length)
      if (offset < disk.byteLength) disk.copy(bytes, 0, offset)
      return bytes
    }
    const header = await readGpt(read)
    if (header !== undefined)
      for (const { offset, size } of await gptPartitions(read, header)) assert(offset >= 0 && size > 0)
    for (const number of [1, 2, 128, 129]) await partitionUuid(read, number, 512)
    return header !== undefined
  },
}

const HEADER = {
  disk: 'serial S1',
  source: 'nbd',
  diskSize: 2 ** 30,
  unitSize: 4096,
  epoch: '00112233445566778899aabbccddeeff',
  area: 0,
  release: 3,
  root: 'ab'.repeat(32),
  since: 1,
  inUse: true,
  stamp: '',
  period: '',
  place: '',
  doubt: '',
} as const

const logHeader: Target = {
  name: 'log-header',
  errors: [],
  seeds: () => [encodeHeader(HEADER)],
  run(input) {
    const sector = Buffer.alloc(SECTOR_BYTES)
    input.copy(sector, 0, 0, SECTOR_BYTES - 4)
    sector.writeUInt32LE(crc32(sector.subarray(0, SECTOR_BYTES - 4)), SECTOR_BYTES - 4)
    const decoded = decodeHeader(sector)
    return typeof decoded !== 'string'
  },
}

const LOG_UNITS = 2 * BITS_PER_SECTOR
const LOG = new LogLayout(LOG_UNITS)
const EPOCH = Buffer.from(HEADER.epoch, 'hex')

/** A whole log of two sectors of bits, the first of which was written. */
function logFile(): Buffer {
  const file = Buffer.alloc(LOG.fileSize)
  const sector = (position: number): Buffer => file.subarray(position * SECTOR_BYTES, (position + 1) * SECTOR_BYTES)
  sector(0).set(encodeHeader({ ...HEADER, diskSize: LOG_UNITS * HEADER.unitSize }))
  sector(LOG.summaryAt(0))[0] = 1
  sector(LOG.bitsAt)[3] = 0x10
  for (const position of [LOG.summaryAt(0), LOG.bitsAt]) sealSector(sector(position), EPOCH, position)
  return file
}

/** A whole log. All checksums are made right. Every unit is marked that may be dirty by what the file says. */
const writeLog: Target = {
  name: 'write-log',
  errors: [],
  seeds: () => [logFile()],
  async run(input) {
    const file = Buffer.alloc(LOG.fileSize + 4 * SECTOR_BYTES)
    input.copy(file)
    for (let at = 0; at < file.byteLength; at += SECTOR_BYTES) {
      const sector = file.subarray(at, at + SECTOR_BYTES)
      if (sector.some((byte) => byte !== 0))
        sector.writeUInt32LE(crc32(sector.subarray(0, SECTOR_BYTES - 4)), SECTOR_BYTES - 4)
    }
    const log: LogContents | string = await readLog(new FaultyDevice(file, 'file'))
    if (typeof log === 'string') return false
    assert.equal(log.marked.length, log.layout.units)
    assert(log.layout.fileSize <= file.byteLength)
    if (log.doubt !== '') return true
    const epoch = Buffer.from(log.header.epoch, 'hex')
    for (let i = 0; i < log.layout.bitSectors; i++) {
      const position: number = log.layout.bitsAt + i
      const sector = file.subarray(position * SECTOR_BYTES, (position + 1) * SECTOR_BYTES)
      const isCurrent: boolean = judgeSector(sector, epoch, position) === 'current'
      const end = Math.min(BITS_PER_SECTOR, log.layout.units - i * BITS_PER_SECTOR)
      for (let bit = 0; bit < end; bit++) {
        const isSet: boolean = !isCurrent || (sector[bit >> 3]! & (1 << (bit & 7))) !== 0
        assert.equal(
          log.marked.has(i * BITS_PER_SECTOR + bit),
          log.touched.has(i) && isSet,
          `unit ${bit} of sector ${i}`,
        )
      }
    }
    return true
  },
}

const era: Target = {
  name: 'era-blocks',
  errors: ['ERA_FAILED'],
  seeds: () =>
    texts('<blocks>\n  <block block="3"/>\n  <range begin="5" end="9"/>\n</blocks>\n', '<blocks>\n</blocks>\n'),
  run(input) {
    for (const [start, end] of parseEraBlocks(input.toString()).runs()) assert(start >= 0 && start < end)
  },
}

const bootMenu: Target = {
  name: 'boot-menu',
  errors: [],
  seeds: () =>
    texts(
      'BootCurrent: 0001\nTimeout: 0 seconds\nBootOrder: 0001,0000\nBoot0000* UiApp\tFvVol(7cb8)/FvFile(462c)\nBoot0001* lab-mesh\tHD(1,GPT,1234)/File(\\EFI\\lab-mesh\\agent.efi)\n',
    ),
  run(input) {
    const menu = parseBootMenu(input.toString())
    currentSlot(menu)
    // They become arguments of efibootmgr(8).
    for (const number of [...menu.order, ...menu.entries.map((entry) => entry.number)])
      assert.match(number, /^[0-9A-Fa-f]*$/)
  },
}

const lease: Target = {
  name: 'lease',
  errors: [],
  seeds: () => texts('192.0.2.7/24 192.0.2.1\n', '192.0.2.7/24'),
  run(input) {
    const found = readLease(input.toString())
    if (found === undefined) return false
    // It becomes an argument of ip(8).
    assert.match(found.address, /^[\d./]+$/)
    assert.match(found.gateway ?? '', /^[\d.]*$/)
    return true
  },
}

const words: Target = {
  name: 'words',
  errors: ['USAGE', 'NBD_ADDRESS_INVALID', 'CONFIG_INVALID'],
  seeds: () =>
    texts(
      'nbd://localhost:10809/disk',
      'nbd+unix:///e?socket=/run/x',
      'Mo-Fr 22:00-05:00',
      '100 Mbit/s',
      'ABCD-EFGH-JK',
      'Mo-Fr 08:00-16:00 10 Mbit/s; else 100 Mbit/s',
    ),
  takesSeeds: false,
  run(input) {
    const text = input.toString()
    let taken = parseBitRate(text) !== undefined || parseKeyCode(text) !== undefined
    for (const parse of [parseNbdUri, parseDayWindow, parseUplinkRule]) {
      try {
        parse(text)
        taken = true
      } catch (error) {
        if (!words.errors.includes((error as { code?: never }).code!)) throw error
      }
    }
    return taken
  },
}

export const FILE_TARGETS: readonly Target[] = [
  config,
  layout,
  machines,
  gpt,
  logHeader,
  writeLog,
  era,
  bootMenu,
  lease,
  words,
]
