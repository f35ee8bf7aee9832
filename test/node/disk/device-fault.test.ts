import { describe, expect, it } from 'vitest'
import { openFault, transferFault } from '../../../node/disk/device-fault.ts'

const cause = (code: string): Error => Object.assign(new Error(code), { code })

describe('why a disk cannot be used', () => {
  it.each([
    ['ENOENT', 'DISK_MISSING', /there is no disk \/dev\/x/],
    ['ENXIO', 'DISK_MISSING', /no device behind it/],
    ['ENODEV', 'DISK_MISSING', /no device behind it/],
    ['ENOMEDIUM', 'DISK_MISSING', /no medium in it/],
    ['EISDIR', 'DISK_NOT_A_DISK', /is a directory/],
    ['EROFS', 'DISK_READ_ONLY', /mounted read-only/],
    ['EBUSY', 'DISK_IN_USE', /is in use/],
    ['ETXTBSY', 'DISK_IN_USE', /swap space/],
    ['EIO', 'DISK_IO', /opening \/dev\/x failed/],
    ['EACCES', 'DISK_UNREADABLE', /cannot be read and written/],
  ])('%s at opening is %s', (errno, code, message) => {
    expect(openFault('/dev/x', cause(errno), { writable: true })).toMatchObject({
      code,
      message: expect.stringMatching(message),
      detail: { path: '/dev/x' },
    })
  })

  it.each([
    ['writing', 'EPERM', 'DISK_READ_ONLY'],
    ['writing', 'EROFS', 'DISK_READ_ONLY'],
    ['writing', 'EIO', 'DISK_IO'],
    ['writing', 'ENOSPC', 'DISK_FULL'],
    ['reading', 'EPERM', 'DISK_IO'],
    ['reading', 'EOF', 'DISK_SHRUNK'],
  ] as const)('%s with %s is %s', (doing, errno, code) => {
    expect(transferFault(doing, '/dev/x', 512, cause(errno))).toMatchObject({ code, detail: { offset: 512 } })
  })
})
