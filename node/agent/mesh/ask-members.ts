import { setTimeout as sleep } from 'node:timers/promises'
import { isMeshError, type MeshError } from '../../../protocol/errors.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { CLOCK_ANSWERS, CLOCK_SETTLE_MS, CLOCK_WAIT_MS, METADATA_WAIT_MS } from './limits.ts'
import { MeshNode } from './mesh-node.ts'

const TICK_MS = 50

/** What members have said. */
export interface Said {
  /** How far their clocks are ahead of this machine's, in milliseconds. */
  readonly clocks: readonly number[]
  /** That another machine signs with the keys of this site, if one of them has proven it; METADATA_FORKED. */
  readonly fork: MeshError | undefined
}

/** Nobody has said anything. */
export const NOTHING_SAID: Said = { clocks: [], fork: undefined }

/**
 * Asks the members that can be reached now for their clocks and for newer metadata, before this machine signs. Nobody may be there: then
 * the answer is empty, after CLOCK_WAIT_MS.
 */
export async function askMembers(
  machine: Machine,
  { listen, mdns, signal }: Pick<AgentOptions, 'listen' | 'mdns' | 'signal'>,
): Promise<Said> {
  if (othersOf(machine) === 0) return NOTHING_SAID
  const node = await MeshNode.start({ machine, listen, mdns, report: () => undefined }).catch((error: unknown) => {
    // What is wrong with the network is told by whoever serves.
    if (isMeshError(error)) return undefined
    throw error
  })
  if (node === undefined) return NOTHING_SAID
  try {
    return await hearMembers(machine, node, signal)
  } finally {
    await node.stop()
  }
}

/** As {@link askMembers}, of a node that was started just now. */
export async function hearMembers(machine: Machine, node: MeshNode, signal: AbortSignal): Promise<Said> {
  const others = othersOf(machine)
  let until = performance.now() + CLOCK_WAIT_MS
  while (others > 0 && performance.now() < until && !signal.aborted) {
    const answers = node.clockOffsets(Date.now()).length
    if (answers >= Math.min(CLOCK_ANSWERS, others)) break
    if (answers > 0) until = Math.min(until, performance.now() + CLOCK_SETTLE_MS)
    await sleep(TICK_MS)
  }
  await Promise.race([node.metadataSettled(), sleep(METADATA_WAIT_MS, undefined, { ref: false })])
  return saidTo(node)
}

/** What members have said to a node by now. */
export function saidTo(node: Pick<MeshNode, 'clockOffsets' | 'fork'>): Said {
  return { clocks: node.clockOffsets(Date.now()), fork: node.fork }
}

function othersOf({ trust }: Machine): number {
  return trust.view().members.length - 1
}
