import { describe, expect, it } from 'vitest'
import { markOf } from '../../../node/disk/disk-mark.ts'
import { FACT_NAMES } from '../../../node/disk/known-disk.ts'
import { decodeHeader, encodeHeader, type LogHeader, SECTOR_BYTES } from '../../../node/writelog/log-layout.ts'

const HEADER: LogHeader = {
  disk: markOf({ kind: 'partition', size: 1, facts: { serial: 'S1XYNYAG', partition: 'p' } }),
  source: 'nbd',
  diskSize: 107374182400,
  unitSize: 4096,
  epoch: '00112233445566778899aabbccddeeff',
  area: 1,
  release: 7,
  root: 'ab'.repeat(32),
  since: 1796031004115,
  inUse: false,
  stamp: 't01234567.0123456789ab',
  period: '',
  place: '0123456789ab',
  doubt: '',
}

describe('the header of a log', () => {
  it('has these bytes; other ones are another version', () => {
    const sector = encodeHeader(HEADER)
    expect(sector).toHaveLength(SECTOR_BYTES)
    const text = sector.toString('latin1', 0, 508).replace(/\0+$/, '')
    expect(text).toBe(
      [
        'LAB-MESH WRITE LOG 2',
        'k2df962d3s7aa9d3acp148de9c5',
        'nbd',
        '107374182400',
        '4096',
        '00112233445566778899aabbccddeeff',
        '1',
        '7',
        'ab'.repeat(32),
        '1796031004115',
        'false',
        't01234567.0123456789ab',
        '',
        '0123456789ab',
        '',
      ].join('\n'),
    )
    expect(sector.readUInt32LE(508).toString(16)).toBe('af3dc7d1')
    expect(decodeHeader(sector)).toEqual(HEADER)
  })

  it('has room for everything at its longest', () => {
    const facts = Object.fromEntries(FACT_NAMES.map((name) => [name, name]))
    const longest: LogHeader = {
      ...HEADER,
      disk: markOf({ kind: 'disk', size: 1, facts }, 'attached'),
      source: 'dm-era',
      diskSize: 64 * 1024 ** 4,
      unitSize: 1024 ** 2,
      release: 2 ** 31,
      stamp: ['t', 'b'].map((letter) => `${letter}01234567.0123456789ab`).join(','),
      period: 'p'.repeat(80),
      doubt: 'd'.repeat(500),
    }
    expect(decodeHeader(encodeHeader(longest))).toEqual({ ...longest, doubt: 'd'.repeat(72) })
  })
})
