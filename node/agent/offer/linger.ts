import { setTimeout as sleep } from 'node:timers/promises'
import { toHex } from '../../../protocol/digest.ts'
import { countBlocks } from '../../../protocol/units.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { LINGER_QUIET_MS, LINGER_TICK_MS } from './limits.ts'

/**
 * Waits while others want something of this machine, `ms` at most. Nobody wants anything any more when for LINGER_QUIET_MS nobody has
 * fetched here, and no connected machine that lacks blocks of this release has got any. A machine that lacks blocks and gets
 * none is in use, not restoring.
 */
export async function linger(
  node: Pick<MeshNode, 'serving' | 'swarm'>,
  manifest: VerifiedManifest,
  options: { ms: number; signal: AbortSignal },
): Promise<void> {
  const whole = countBlocks(manifest.size, manifest.blockSize) - manifest.preserve.count
  const root = toHex(manifest.root)
  const activity = (): string => {
    const lacking = node.swarm.holders(root).filter(({ held }) => held.count < whole)
    return [node.serving().bytes, ...lacking.map(({ peerId, held }) => `${peerId} ${held.count}`).toSorted()].join()
  }
  const begun = performance.now()
  let [last, activeAt] = [activity(), begun]
  while (!options.signal.aborted) {
    const now = performance.now()
    const current = activity()
    if (current !== last || node.serving().clients > 0) activeAt = now
    last = current
    const leftMs = Math.min(begun + options.ms - now, activeAt + LINGER_QUIET_MS - now)
    if (leftMs <= 0) return
    await sleep(Math.min(LINGER_TICK_MS, leftMs), undefined, { signal: options.signal }).catch(() => undefined)
  }
}
