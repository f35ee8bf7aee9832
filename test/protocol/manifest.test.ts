import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isMeshError } from '../../protocol/errors.ts'
import { decodeManifest, encodeManifest, isImageName, type Manifest } from '../../protocol/manifest.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { byteCount } from '../../protocol/units.ts'

const sample: Manifest = {
  image: 'school-a/win11',
  release: 3,
  size: byteCount(1_000_000),
  blockSize: byteCount(65536),
  root: Buffer.alloc(32, 0xab),
  preserve: RangeSet.from([[2, 4]]),
  label: 'after the holidays – ä',
  time: '2026-01-02T03:04:05.678Z',
}

const refused = (bytes: Uint8Array): boolean => {
  try {
    decodeManifest(bytes)
    return false
  } catch (error) {
    expect(isMeshError(error, 'MANIFEST_INVALID')).toBe(true)
    return true
  }
}

describe('manifest', () => {
  it('has the golden bytes', () => {
    const golden = readFileSync(join(import.meta.dirname, '../vectors/manifest.json'))
    expect(Buffer.from(encodeManifest(sample)).equals(golden)).toBe(true)
    const decoded = decodeManifest(golden)
    expect(decoded).toMatchObject({ image: sample.image, release: 3, size: 1_000_000, label: sample.label })
    expect(decoded.preserve.equals(sample.preserve)).toBe(true)
  })

  it('names the list of repeats, if there is one', () => {
    const repeats = Buffer.alloc(32, 0xcd)
    const bytes = encodeManifest({ ...sample, repeats })
    expect(decodeManifest(bytes).repeats).toEqual(repeats)
    expect(decodeManifest(encodeManifest(sample))).not.toHaveProperty('repeats')
    const json = JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>
    for (const wrong of ['', 'cd', null, 7, 'CD'.repeat(32)])
      expect(refused(Buffer.from(JSON.stringify({ ...json, repeats: wrong })))).toBe(true)
  })

  it('names the sectors of its partition table, if it has one', () => {
    const golden = readFileSync(join(import.meta.dirname, '../vectors/manifest-of-disk.json'))
    expect(Buffer.from(encodeManifest({ ...sample, sectorSize: 512 })).equals(golden)).toBe(true)
    expect(decodeManifest(golden).sectorSize).toBe(512)
    expect(decodeManifest(encodeManifest(sample))).not.toHaveProperty('sectorSize')
    const json = JSON.parse(golden.toString()) as Record<string, unknown>
    for (const wrong of [0, 500, 8192, '512', null])
      expect(refused(Buffer.from(JSON.stringify({ ...json, sectorSize: wrong })))).toBe(true)
  })

  it('refuses every wrong value', () => {
    const json = JSON.parse(Buffer.from(encodeManifest(sample)).toString()) as Record<string, unknown>
    const variants: Record<string, unknown>[] = [
      { ...json, format: 0 },
      { ...json, format: '1' },
      { ...json, release: 0 },
      { ...json, release: 1.5 },
      { ...json, size: -1 },
      { ...json, size: 2 ** 60 },
      { ...json, blockSize: 65537 },
      { ...json, blockSize: 2048 },
      { ...json, root: 'AB'.repeat(32) },
      { ...json, root: 'ab' },
      { ...json, image: '../etc' },
      { ...json, preserve: [[3, 2]] },
      { ...json, preserve: [[0, 1000]] },
      {
        ...json,
        preserve: [
          [1, 2],
          [0, 1],
        ],
      },
      { ...json, preserve: 'none' },
      { ...json, time: 'yesterday' },
      { ...json, label: 'x'.repeat(201) },
    ]
    for (const variant of variants) {
      const ordered = Object.fromEntries(Object.entries(variant).sort(([a], [b]) => (a < b ? -1 : 1)))
      expect(refused(Buffer.from(JSON.stringify(ordered))), JSON.stringify(variant)).toBe(true)
    }
  })

  it('refuses any other bytes with a typed error', () => {
    fc.assert(fc.property(fc.uint8Array(), (bytes) => refused(bytes)))
    fc.assert(fc.property(fc.json(), (text) => refused(Buffer.from(text))))
  })

  it('knows image names', () => {
    for (const name of ['win11', 'school-a/lab_b', 'a.b-c/1']) expect(isImageName(name)).toBe(true)
    for (const name of ['', '/a', 'a/', 'A', 'a..b', '../a', 'a b', '.a', 'x'.repeat(129)])
      expect(isImageName(name)).toBe(false)
  })
})
