import { open, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { STAGE_RESERVE_BYTES } from '../../../node/store/limits.ts'
import { Stage } from '../../../node/store/stage.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { Random } from '../../../tools/lab/random.ts'
import { testSeed } from '../../support/seed.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const BLOCK = 4096
const random = new Random(testSeed('stage'))
const { signal } = new AbortController()

function someBlocks(count: number): { digest: Uint8Array; data: Uint8Array }[] {
  return Array.from({ length: count }, () => {
    const data = random.bytes(BLOCK)
    return { data, digest: digestOf(data) }
  })
}

/** A stage with these blocks, durable, and its directory. */
async function staged(blocks: ReturnType<typeof someBlocks>): Promise<{ directory: string; stage: Stage }> {
  const directory = join(await temporaryDirectory(), 'stage')
  const stage = await Stage.open(directory, BLOCK)
  for (const { digest, data } of blocks) await stage.add(digest, data)
  await stage.flush()
  return { directory, stage }
}

async function overwrite(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(bytes, 0, bytes.byteLength, offset)
  await file.close()
}

describe('the stage', () => {
  it('gives what was added, now and after it was opened again', async () => {
    const blocks = someBlocks(20)
    const { directory, stage } = await staged(blocks)
    await stage.add(blocks[3]!.digest, blocks[3]!.data)
    for (const { digest, data } of blocks) expect(await stage.read(digest)).toEqual(Buffer.from(data))
    await stage.close()
    const again = await Stage.open(directory, BLOCK)
    expect(again.count).toBe(20)
    for (const { digest, data } of blocks) expect(await again.read(digest)).toEqual(Buffer.from(data))
    expect(await again.read(digestOf(random.bytes(BLOCK)))).toBeUndefined()
    await again.close()
    // Another block size: nothing of it is of use.
    const other = await Stage.open(directory, 2 * BLOCK)
    expect(other.count).toBe(0)
    await other.close()
    expect((await stat(join(directory, 'blocks'))).size).toBe(0)
  })

  it('is nothing but less than it was after a crash: what is not flushed, torn or damaged is not there', async () => {
    const blocks = someBlocks(8)
    const { directory, stage } = await staged(blocks.slice(0, 5))
    // In the files as the kernel has them, but never flushed: the index does not name it.
    await stage.add(blocks[5]!.digest, blocks[5]!.data)
    const crashed = await Stage.open(directory, BLOCK)
    expect(crashed.has(blocks[5]!.digest)).toBe(false)
    await crashed.close()
    await stage.close()
    await overwrite(join(directory, 'blocks'), 1 * BLOCK + 100, Buffer.from([random.below(256), 1, 2, 3]))
    await overwrite(join(directory, 'index'), 64 + 2 * 32 + 20, random.bytes(12))
    await truncate(join(directory, 'blocks'), 5 * BLOCK + 10)
    const again = await Stage.open(directory, BLOCK)
    for (const [i, { digest, data }] of blocks.entries()) {
      const found = await again.read(digest)
      expect(found, `block ${i}`).toEqual([0, 3, 4].includes(i) ? Buffer.from(data) : undefined)
    }
    await again.check(signal)
    expect(again.count).toBe(3)
    // What is found damaged gives room for others.
    for (const { digest, data } of blocks.slice(5)) await again.add(digest, data)
    await again.flush()
    expect((await stat(join(directory, 'blocks'))).size).toBe(6 * BLOCK)
    await again.close()
  })

  it('takes an index of any content for what it is worth', async () => {
    const { directory, stage } = await staged(someBlocks(3))
    await stage.close()
    for (const index of [new Uint8Array(), random.bytes(1000), Buffer.from('lab-mesh-stage 1 4096\n')]) {
      await writeFile(join(directory, 'index'), index)
      const again = await Stage.open(directory, BLOCK)
      expect(again.count).toBe(0)
      await again.close()
    }
  })

  it('drops what is not to be kept, uses its room again, and takes no space when it is empty', async () => {
    const blocks = someBlocks(12)
    const { directory, stage } = await staged(blocks.slice(0, 8))
    const kept = blocks.slice(2, 5).map(({ digest }) => Buffer.from(digest).toString('hex'))
    await stage.retain((digest) => kept.includes(Buffer.from(digest).toString('hex')))
    for (const { digest, data } of blocks.slice(8)) await stage.add(digest, data)
    await stage.flush()
    expect((await stat(join(directory, 'blocks'))).size).toBe(8 * BLOCK)
    await stage.close()
    const again = await Stage.open(directory, BLOCK)
    for (const [i, { digest, data }] of blocks.entries())
      expect(await again.read(digest), `block ${i}`).toEqual(i < 2 || (i >= 5 && i < 8) ? undefined : Buffer.from(data))
    await again.retain(() => false)
    expect(again.count).toBe(0)
    await again.close()
    expect((await stat(join(directory, 'blocks'))).size).toBe(0)
    expect((await readFile(join(directory, 'index'))).byteLength).toBe(64)
    expect(await Stage.openIfThere(join(directory, 'none'), BLOCK)).toBeUndefined()
  })

  it('knows how much fits', async () => {
    const { stage } = await staged(someBlocks(2))
    expect(await stage.capacity(10 * BLOCK + 5)).toBe(10)
    const most = await stage.capacity(Number.MAX_SAFE_INTEGER)
    expect(most).toBeGreaterThanOrEqual(2)
    expect(STAGE_RESERVE_BYTES).toBeGreaterThan(0)
    await stage.close()
  })
})
