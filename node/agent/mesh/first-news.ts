import { setTimeout as sleep } from 'node:timers/promises'
import { FIRST_PEER_TICK_MS, METADATA_WAIT_MS } from './limits.ts'
import type { MeshNode } from './mesh-node.ts'

/**
 * Waits for what the first peer tells of releases and members, so that what follows goes by newer metadata if there is any.
 * Without a peer the wait ends after `peerMs`; with one, METADATA_WAIT_MS after it came, at the latest.
 */
export async function firstNews(
  node: Pick<MeshNode, 'swarm' | 'metadataSettled'>,
  peerMs: number,
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + peerMs
  while (node.swarm.peers().length === 0 && performance.now() < deadline && !signal.aborted)
    await sleep(FIRST_PEER_TICK_MS)
  await Promise.race([node.metadataSettled(), sleep(METADATA_WAIT_MS, undefined, { ref: false })])
}
