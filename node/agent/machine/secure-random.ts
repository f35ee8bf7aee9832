import { randomInt } from 'node:crypto'

/** A random number in [0, 1) that nobody can foresee. */
export function secureRandom(): number {
  return randomInt(2 ** 40) / 2 ** 40
}
