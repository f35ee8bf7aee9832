import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { currentGeneration, nextGeneration, removeOtherGenerations } from '../../../node/trust/generations.ts'
import { useTempDir } from '../../support/temp-dir.ts'

describe('nextGeneration', () => {
  const dir = useTempDir()
  const write = (name: string) => async (scratch: string) => {
    await writeFile(join(scratch, name), name)
    return name
  }

  it('starts from the generation in force and nothing else', async () => {
    expect(await currentGeneration(dir('trust'))).toBeUndefined()
    const first = await nextGeneration(dir('trust'), write('a'))
    expect(first).toEqual({ path: dir('trust', 'gen-000001'), content: 'a' })
    // What a crash left: of the very number that comes next, and others.
    for (const name of ['gen-000002', 'gen-000007']) {
      await mkdir(dir('trust', name, 'targets'), { recursive: true })
      await writeFile(dir('trust', name, 'junk'), '')
    }
    const second = await nextGeneration(dir('trust'), write('b'))
    expect(await currentGeneration(dir('trust'))).toBe(second?.path)
    expect((await readdir(second?.path ?? '')).sort()).toEqual(['a', 'b', 'targets'])
    // The one before is there for whoever reads it, until it is removed.
    expect((await readdir(dir('trust'))).sort()).toEqual(['CURRENT', 'gen-000001', 'gen-000002'])
    await removeOtherGenerations(dir('trust'), second?.path)
    expect((await readdir(dir('trust'))).sort()).toEqual(['CURRENT', 'gen-000002'])
  })

  it('leaves everything as it was when it is dropped or fails', async () => {
    await nextGeneration(dir('drop'), write('a'))
    expect(await nextGeneration(dir('drop'), async () => undefined)).toBeUndefined()
    const failing = nextGeneration(dir('drop'), async (scratch) => {
      await rm(join(scratch, 'a'))
      throw new Error('no')
    })
    await expect(failing).rejects.toThrow('no')
    expect((await readdir(dir('drop'))).sort()).toEqual(['CURRENT', 'gen-000001'])
    expect(await readFile(dir('drop', 'gen-000001', 'a'), 'utf8')).toBe('a')
  })

  it('keeps a generation that came into force although the switch reported a failure', async () => {
    await nextGeneration(dir('late'), write('a'))
    const failing = nextGeneration(dir('late'), async () => {
      // As when the flush after the rename fails.
      await writeFile(dir('late', 'CURRENT'), 'gen-000002')
      throw new Error('flush failed')
    })
    await expect(failing).rejects.toThrow('flush failed')
    expect(await readFile(join((await currentGeneration(dir('late'))) ?? '', 'a'), 'utf8')).toBe('a')
  })
})
