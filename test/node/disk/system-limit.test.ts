import { describe, expect, it } from 'vitest'
import { openFault } from '../../../node/disk/device-fault.ts'
import { systemLimit, unlessLimit } from '../../../node/disk/system-limit.ts'
import { storageError } from '../../../node/state/atomic-file.ts'
import { MeshError } from '../../../protocol/errors.ts'

const failing = (code: string): Error => Object.assign(new Error(`${code}: it failed`), { code })

describe('a limit of the machine', () => {
  it.each([
    ['EMFILE', /^no more files can be opened: this process may have (\d+|unlimited) open at a time \(ulimit -n\)$/],
    ['ENFILE', /sysctl fs\.file-max/],
    ['ENOMEM', /no memory left/],
  ])('%s is named, and taken for no damage of what was to be opened', (code, message) => {
    const error = failing(code)
    const corrupt = new MeshError('STATE_CORRUPT', 'x is damaged', { cause: error })
    for (const fault of [
      systemLimit(error),
      systemLimit(corrupt),
      storageError(error, '/x'),
      openFault('/x', error, { writable: false }),
    ])
      expect(fault).toMatchObject({ code: 'SYSTEM_LIMIT', message: expect.stringMatching(message), exitCode: 3 })
  })

  it.each([
    ['IO error: /x/db: Too many open files', 'ulimit'],
    ['IO error: /x/db: Too many open files in system', 'file-max'],
    ['Worker initialization failure: EMFILE', 'ulimit'],
    ['uv_interface_addresses returned Unknown system error 24 (Unknown system error 24)', 'ulimit'],
    ['fork: Cannot allocate memory', 'memory'],
  ])('is known by the text alone: %s', (text, word) => {
    expect(systemLimit(new Error('outer', { cause: new Error(text) }))?.message).toContain(word)
  })

  it('does not count as a file that is missing', () => {
    expect(unlessLimit('none')(failing('ENOENT'))).toBe('none')
    expect(() => unlessLimit('none')(failing('EMFILE'))).toThrow('no more files can be opened')
  })

  it('is no other error', () => {
    expect(systemLimit(failing('ENOENT'))).toBe(undefined)
    expect(systemLimit('EMFILE')).toBe(undefined)
  })
})
