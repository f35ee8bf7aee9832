/** `major:minor` of a device, as /sys and /proc write it, from the `rdev` or `dev` of a stat (glibc's makedev layout). */
export function deviceNumber(dev: number): string {
  const value = BigInt(dev)
  const major = ((value >> 8n) & 0xfffn) | ((value >> 32n) & ~0xfffn)
  const minor = (value & 0xffn) | ((value >> 12n) & 0xffffff00n)
  return `${major}:${minor}`
}
