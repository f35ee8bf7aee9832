import { readFile, stat } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { deviceNumber } from '../../../node/disk/device-number.ts'

it('splits a device number as glibc makes it', () => {
  expect(deviceNumber(0x0103)).toBe('1:3')
  // makedev(259, 300): minors above 255 continue beyond bit 20.
  expect(deviceNumber(((300 & ~0xff) * 2 ** 12) | (259 << 8) | (300 & 0xff))).toBe('259:300')
  // Majors above 4095 continue beyond bit 32, minors use 32 bits.
  expect(deviceNumber(0x1000 * 2 ** 32 + 0xfff00000)).toBe('4096:1048320')
})

it('agrees with the kernel', async () => {
  const [, , number] = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .map((line) => line.split(' '))
    .find((fields) => fields[4] === '/proc')!
  expect(deviceNumber((await stat('/proc')).dev)).toBe(number)
})
