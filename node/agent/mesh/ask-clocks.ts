import { setTimeout as sleep } from 'node:timers/promises'
import { isMeshError } from '../../../protocol/errors.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { CLOCK_ANSWERS, CLOCK_SETTLE_MS, CLOCK_WAIT_MS } from './limits.ts'
import { MeshNode } from './mesh-node.ts'

const TICK_MS = 50

/**
 * How far the clocks of members that can be reached now are ahead of this machine's, in milliseconds. Nobody may be there: then
 * the answer is empty, after CLOCK_WAIT_MS.
 */
export async function askClocks(
  machine: Machine,
  { listen, mdns, signal }: Pick<AgentOptions, 'listen' | 'mdns' | 'signal'>,
): Promise<readonly number[]> {
  if (othersOf(machine) === 0) return []
  const node = await MeshNode.start({ machine, listen, mdns, report: () => undefined }).catch((error: unknown) => {
    // What is wrong with the network is told by whoever serves.
    if (isMeshError(error)) return undefined
    throw error
  })
  if (node === undefined) return []
  try {
    return await hearClocks(machine, node, signal)
  } finally {
    await node.stop()
  }
}

/** As {@link askClocks}, of a node that was started just now. */
export async function hearClocks(machine: Machine, node: MeshNode, signal: AbortSignal): Promise<readonly number[]> {
  const others = othersOf(machine)
  let until = performance.now() + CLOCK_WAIT_MS
  while (others > 0 && performance.now() < until && !signal.aborted) {
    const answers = node.clockOffsets(Date.now()).length
    if (answers >= Math.min(CLOCK_ANSWERS, others)) break
    if (answers > 0) until = Math.min(until, performance.now() + CLOCK_SETTLE_MS)
    await sleep(TICK_MS)
  }
  return node.clockOffsets(Date.now())
}

function othersOf({ trust }: Machine): number {
  return trust.view().members.length - 1
}
