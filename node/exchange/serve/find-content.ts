import { setImmediate as nextTurn } from 'node:timers/promises'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { DIGEST_SIZE_BYTES } from '../../../protocol/constants.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { Holding } from '../../store/block-source.ts'

/** Digests that are looked up before the rest of the process has its turn. */
const AT_ONCE = 128

/** Which contents can be served: a bit for each of `digests` (32 bytes each), the least significant bit of a byte first. */
export async function findContent(holdings: readonly Holding[], digests: Uint8Array): Promise<Uint8Array> {
  const found = new Bitmap(digests.byteLength / DIGEST_SIZE_BYTES)
  for (let i = 0; i < found.length; i++) {
    const digest = digests.subarray(i * DIGEST_SIZE_BYTES, (i + 1) * DIGEST_SIZE_BYTES)
    for (const holding of holdings) {
      if (!(await holding.has(digest).catch(absent))) continue
      found.set(i)
      break
    }
    if (i % AT_ONCE === AT_ONCE - 1) await nextTurn()
  }
  const bits = new Uint8Array(Math.ceil(found.length / 8))
  found.store(0, bits)
  return bits
}

/** In a damaged tree nothing is found; this machine's own restore reports and repairs the tree. */
function absent(error: unknown): boolean {
  if (isMeshError(error)) return false
  throw error
}
