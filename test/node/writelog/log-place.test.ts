import { copyFile, open, rename, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { placeDoubt, placeOf } from '../../../node/writelog/log-place.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

describe('the file that a log is kept in', () => {
  it('is known after it was written and renamed', async () => {
    const path = join(await temporaryDirectory(), 'log')
    await writeFile(path, 'first')
    const { mark = '' } = (await placeOf(path)) ?? {}
    await using file = await open(path, 'r+')
    await file.write('later', 0)
    expect(placeDoubt(mark, await placeOf(path))).toBe(undefined)
    await rename(path, `${path}.renamed`)
    expect(placeDoubt(mark, await placeOf(`${path}.renamed`))).toBe(undefined)
  })

  it('is doubted if it was put back from a copy', async () => {
    const path = join(await temporaryDirectory(), 'log')
    await writeFile(path, 'content')
    const { mark = '' } = (await placeOf(path)) ?? {}
    await copyFile(path, `${path}.copy`)
    await rm(path)
    await copyFile(`${path}.copy`, path)
    expect(placeDoubt(mark, await placeOf(path))).toMatch(/is a copy/)
  })

  it('is doubted if it was overwritten by a program that puts its time back', async () => {
    const path = join(await temporaryDirectory(), 'log')
    await writeFile(path, 'content')
    const { mark = '' } = (await placeOf(path)) ?? {}
    const hourAgo = Date.now() / 1000 - 3600
    await utimes(path, hourAgo, hourAgo)
    expect(placeDoubt(mark, await placeOf(path))).toMatch(/changed by another program/)
  })

  it('says nothing where a log is kept in no file, or was kept in none', async () => {
    expect(await placeOf('/dev/null')).toBe(undefined)
    expect(await placeOf('/no/such/file')).toBe(undefined)
    expect(placeDoubt('', { mark: '1', changed: true })).toBe(undefined)
    expect(placeDoubt('1', undefined)).toBe(undefined)
  })
})
