import { readFile, writeFile } from 'node:fs/promises'
import { zstdCompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { Random } from '../../tools/lab/random.ts'
import { DIRT_KINDS, planDirt, writeToFile } from '../../tools/netlab/dirt.ts'
import { findNeed, idealSeconds } from '../../tools/netlab/ideal.ts'
import { changedLayout, modelLayout, randomPieces, writeImage } from '../../tools/netlab/model-image.ts'
import { systemPieces } from '../../tools/netlab/system-files.ts'
import { codeOf } from '../support/error-code.ts'
import { testSeed } from '../support/seed.ts'
import { useTempDir } from '../support/temp-dir.ts'

const GRANULES = 2048
const { signal } = new AbortController()

describe('the image of the lab', () => {
  const dir = useTempDir()

  it('has its share of zeros and repeats, and nothing else can be compressed', async () => {
    const seed = testSeed('lab image')
    const layout = modelLayout(GRANULES, new Random(seed))
    const zeros = layout.filter((piece) => piece === -1).length
    const different = new Set(layout.filter((piece) => piece !== -1)).size
    expect(zeros).toBe(Math.round(GRANULES * 0.2))
    expect(GRANULES - zeros - different).toBe(Math.round(GRANULES * 0.05))
    await writeImage(dir('one.img'), layout, randomPieces(seed))
    await writeImage(dir('blank.img'), new Int32Array(GRANULES).fill(-1), randomPieces(seed))
    const need = await findNeed(dir('one.img'), [dir('blank.img')], signal)
    expect(need).toMatchObject({ into: [different * GRANULE_SIZE_BYTES], fromSource: different * GRANULE_SIZE_BYTES })
    expect(need.fromSourceInBlocks).toBeGreaterThanOrEqual(need.fromSource)
    const bytes = await readFile(dir('one.img'))
    expect(zstdCompressSync(bytes).length).toBeGreaterThan(different * GRANULE_SIZE_BYTES * 0.99)
  })

  it('is the same for the same seed, and another for another', async () => {
    const seed = testSeed('lab image, seeds')
    for (const [name, own] of [
      ['a.img', seed],
      ['b.img', seed],
      ['c.img', seed + 1],
    ] as const)
      await writeImage(dir(name), modelLayout(256, new Random(own)), randomPieces(own))
    const [a, b, c] = await Promise.all(['a.img', 'b.img', 'c.img'].map((name) => readFile(dir(name))))
    expect(a!.equals(b!)).toBe(true)
    expect(a!.equals(c!)).toBe(false)
  })

  it('of system content compresses as a system does, has the same zeros, and is the same again', async () => {
    const layout = modelLayout(GRANULES, new Random(testSeed('lab image of system files')))
    await writeImage(dir('one.img'), layout, await systemPieces(GRANULES))
    await writeImage(dir('two.img'), layout, await systemPieces(2 * GRANULES))
    const [one, two] = await Promise.all(['one.img', 'two.img'].map((name) => readFile(dir(name))))
    expect(one!.equals(two!)).toBe(true)
    const empty = Buffer.alloc(GRANULE_SIZE_BYTES)
    for (const [at, piece] of layout.entries()) {
      if (piece === -1)
        expect(one!.subarray(at * GRANULE_SIZE_BYTES, (at + 1) * GRANULE_SIZE_BYTES).equals(empty)).toBe(true)
    }
    expect(zstdCompressSync(one!).length).toBeLessThan(0.9 * 0.8 * GRANULES * GRANULE_SIZE_BYTES)
    // Pieces are the same wherever a read begins.
    const pieces = await systemPieces(GRANULES)
    expect(Buffer.concat([await pieces(5, 2), await pieces(7, 90)])).toEqual(await pieces(5, 92))
  })

  it('of system content is refused if this machine has not enough of it', async () => {
    expect(await codeOf(systemPieces(2 ** 40))).toBe('USAGE')
  })

  it('changes exactly its share from release to release', async () => {
    const seed = testSeed('lab image, next release')
    const before = modelLayout(GRANULES, new Random(seed))
    const after = changedLayout(before, planDirt('clustered', GRANULES, 0.1, new Random(seed + 1)))
    const changed = after.filter((piece, at) => piece !== before[at]).length
    expect(changed).toBe(Math.round(GRANULES * 0.1))
    await writeImage(dir('r1.img'), before, randomPieces(seed))
    await writeImage(dir('r2.img'), after, randomPieces(seed))
    const { into } = await findNeed(dir('r2.img'), [dir('r1.img')], signal)
    expect(into).toEqual([changed * GRANULE_SIZE_BYTES])
  })
})

describe('the dirt of the lab', () => {
  const dir = useTempDir()

  it.each(DIRT_KINDS)('%s: covers its share, without overlap, wherever granules lie', async (kind) => {
    const seed = testSeed(`${kind} dirt`)
    const size = GRANULES * 8 * GRANULE_SIZE_BYTES
    const writes = planDirt(kind, size / GRANULE_SIZE_BYTES, 0.1, new Random(seed))
    const sorted = writes.toSorted((a, b) => a.offset - b.offset)
    for (const [i, { offset, length }] of sorted.entries()) {
      expect(offset % GRANULE_SIZE_BYTES).toBe(0)
      expect(offset + length).toBeLessThanOrEqual(sorted[i + 1]?.offset ?? size)
    }
    const lengths = writes.map(({ length }) => length)
    expect(lengths.reduce((sum, length) => sum + length, 0)).toBe(
      Math.round((size / GRANULE_SIZE_BYTES) * 0.1) * GRANULE_SIZE_BYTES,
    )
    expect(Math.max(...lengths)).toBe(kind === 'uniform' ? GRANULE_SIZE_BYTES : 1024 ** 2)
    await writeFile(dir('disk.img'), Buffer.alloc(size))
    await writeToFile(dir('disk.img'), writes)
    const disk = await readFile(dir('disk.img'))
    expect(disk.reduce((count, byte) => count + (byte === 0 ? 0 : 1), 0)).toBe(
      lengths.reduce((sum, length) => sum + length, 0),
    )
  })

  it('finds places even where half of a small disk is dirtied', () => {
    const writes = planDirt('clustered', 256, 0.5, new Random(testSeed('much dirt')))
    expect(writes.reduce((sum, { length }) => sum + length, 0)).toBe(128 * GRANULE_SIZE_BYTES)
  })
})

describe('the ideal of the lab', () => {
  const dir = useTempDir()
  const disk = async (name: string, pieces: string): Promise<string> => {
    await writeFile(
      dir(name),
      Buffer.concat([...pieces].map((c) => Buffer.alloc(GRANULE_SIZE_BYTES, c === '.' ? '\0' : c))),
    )
    return dir(name)
  }

  it('counts neither zeros, nor repeats, nor what a machine has elsewhere; the source gives what nobody has', async () => {
    const image = await disk('image', 'abca..de')
    const machines = [await disk('m1', 'xbcx.xde'), await disk('m2', 'yyyyyyya'), await disk('m3', 'c..xxxxe')]
    const need = await findNeed(image, machines, signal)
    // m1 lacks a; m2 lacks b, c, d, e; m3 lacks a, b, d.
    expect(need).toMatchObject({
      into: [GRANULE_SIZE_BYTES, 4 * GRANULE_SIZE_BYTES, 3 * GRANULE_SIZE_BYTES],
      fromSource: 0,
    })
    expect((await findNeed(image, machines.slice(2), signal)).fromSource).toBe(3 * GRANULE_SIZE_BYTES)
  })

  it('is the time of the slowest link', () => {
    const need = { into: [1e6, 2e6], fromSource: 5e5, fromSourceInBlocks: 5e5 }
    expect(idealSeconds(need, { machine: 16e6, source: 16e6 })).toBe(1)
    expect(idealSeconds(need, { machine: 16e6, source: 2e6 })).toBe(2)
  })
})
