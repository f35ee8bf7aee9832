import type { Machine } from '../machine/machine.ts'
import type { ServicePart } from '../machine/service-part.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import type { HeldRelease } from '../offer/open-source.ts'
import type { ReceiptGatherer } from '../receipts/receipt-gatherer.ts'
import type { AskMachines } from './ask-machines.ts'
import { encodeHolder, holdersOf } from './holders.ts'
import { GATHER_WAIT_MS } from './limits.ts'

/** The methods of the control socket by which an `Operator` in another process asks the other machines through this one. */
export function askedMethods({
  machine,
  node,
  machines,
  gatherer,
  held,
}: {
  readonly machine: Machine
  readonly node: MeshNode
  readonly machines: AskMachines
  readonly gatherer: ReceiptGatherer
  /** What this machine offers itself. */
  readonly held?: () => readonly HeldRelease[]
}): Required<Pick<ServicePart, 'methods'>> {
  return {
    methods: {
      operate: async (params) => machines.askAll(params),
      gather: async () => gatherer.gather(GATHER_WAIT_MS),
      holders: async ({ root }) => holdersOf(String(root), machine, node, held?.()).map(encodeHolder),
    },
  }
}
