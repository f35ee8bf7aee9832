import { describe, expect, it } from 'vitest'
import { findName, sameName } from '../../protocol/names.ts'

describe('sameName', () => {
  it.each([
    ['pc07', 'PC07', true],
    ['pc07', 'pc07', true],
    ['pc07', 'pc7', false],
    ['Süd', 'SÜD', true],
    // The same letter, coded as one character and as two.
    ['S\u00fcd', 'Su\u0308d', true],
  ])('%s, %s: %s', (a, b, same) => {
    expect(sameName(a, b)).toBe(same)
  })
})

describe('findName', () => {
  it('takes the one that is spelled like it, if there is one', () => {
    const find = (known: string[], name: string) => findName(known, name, (one) => one)
    expect(find(['PC07', 'pc07'], 'pc07')).toBe('pc07')
    expect(find(['PC07', 'pc07'], 'Pc07')).toBe('PC07')
    expect(find(['PC07'], 'pc08')).toBeUndefined()
  })
})
