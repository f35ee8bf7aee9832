import { LabWatch } from '../lab/lab-watch.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import type { ServicePart } from '../machine/service-part.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import type { HeldRelease } from '../offer/open-source.ts'
import { ReceiptGatherer } from '../receipts/receipt-gatherer.ts'
import { AskMachines } from './ask-machines.ts'
import { askedMethods } from './asked-methods.ts'

/** What {@link operatorMethods} works with. */
interface OperatorMethodsOptions {
  readonly machine: Machine
  readonly node: MeshNode
  /** What this machine offers itself. */
  readonly held: () => readonly HeldRelease[]
  readonly report: (event: AgentEvent) => void
}

/**
 * The methods of the control socket by which an `Operator` in another process reaches the machines through this one. On the
 * master and on operators' machines receipts are gathered, and what the machines say of themselves is kept, until the stack ends.
 */
export function operatorMethods(
  { machine, node, held, report }: OperatorMethodsOptions,
  stack: AsyncDisposableStack,
): ServicePart {
  const machines = new AskMachines(machine, node)
  const gatherer = new ReceiptGatherer({
    machine,
    ask: (peers, request) => machines.ask(peers, request),
    warn: (text) => report({ type: 'warning', text }),
  })
  const watch = new LabWatch({
    machine,
    node,
    ask: (peers, request) => machines.ask(peers, request),
    warn: (text) => report({ type: 'warning', text }),
  })
  stack.adopt(gatherer, (it) => it.stop())
  stack.adopt(watch, (it) => it.stop())
  // The stack closes this before it stops the gatherer: a round that is under way ends by it.
  stack.adopt(machines, (it) => it.close())
  node.onPeer((id, isUp) => {
    if (!isUp) return
    gatherer.noticed(id)
    watch.noticed(id)
  })
  if (machine.isOperator(machine.config.id)) {
    gatherer.start()
    watch.start()
    for (const { id } of node.connectedMembers()) {
      gatherer.noticed(id)
      watch.noticed(id)
    }
  }
  return askedMethods({ machine, node, machines, gatherer, held })
}
