/**
 * The room `run`: the commands that keep running, `mesh up` and `mesh seed`, and the commands that ask them.
 * `serve` opens the node, merges what the other rooms add to a running command (each a `ServicePart`), and serves until it is stopped.
 * master is the master's part. up and seed say what is offered. ask-running asks the running command over its control socket, from
 * another process.
 */

import { HashPool } from '../../disk/hash-pool.ts'
import { statusMethods } from '../answer/status.ts'
import { recordDoubts } from '../log/log-doubt.ts'
import { aborted } from '../machine/aborted.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import type { ServicePart } from '../machine/service-part.ts'
import { rememberReset, rememberServing } from '../machine/settings.ts'
import { MeshNode } from '../mesh/mesh-node.ts'
import { OfferedDisks } from '../offer/offered-disks.ts'
import type { Offer } from '../offer/open-source.ts'
import { limitNode, spareUser, stepBack } from '../offer/serving-limits.ts'
import { answerOperators } from '../operate/answer-operators.ts'
import { operatorMethods } from '../operate/operator-methods.ts'
import { heardOfReceipt } from '../receipts/receipt-floor.ts'
import { siteMethods } from '../site/carry-metadata.ts'
import { Stager } from '../stage/stager.ts'
import { Master, masterMethods } from './master.ts'
import { publishMethods } from './publish-here.ts'

/** What {@link serve} takes of a command's options. */
type ServeOptions = Pick<
  AgentOptions,
  'listen' | 'mdns' | 'serving' | 'reset' | 'fromFile' | 'version' | 'signal' | 'report'
>

/** Finds out, or makes, what is offered, while others are answered already. */
type Prepare = (node: MeshNode, report: (event: AgentEvent) => void) => Promise<Offer | undefined>

/**
 * Serves until the signal aborts: the common part of `mesh up` and `mesh seed`. This machine is in the network, and answers other
 * commands, before `prepare` begins, which may take hours.
 * Errors: MEMBER_REMOVED when this machine hears that it was taken out of the site.
 */
export async function serve(machine: Machine, prepare: Prepare, options: ServeOptions): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const { listen, mdns, version, signal } = options
  const report = machine.telling(options.report)
  const serving = await rememberServing(machine, options)
  const reset = await rememberReset(machine, options)
  const pool = stack.adopt(new HashPool(), (it) => it.close())
  const master = machine.config.role === 'master' ? await Master.open(machine, report) : undefined
  const started = await MeshNode.start({ machine, listen, mdns, report, enrolment: master?.enrolment })
  const node = stack.adopt(started, (it) => it.stop())
  master?.heed(node)
  limitNode(node, serving)
  const use = spareUser(node, serving, report, stack)
  const disks = new OfferedDisks({ machine, node, pool, report, signal }, stack)
  const stager = new Stager({ machine, node, config: serving, inUse: () => use.inUse, report })
  const heardOf = async (number: number, by: string): Promise<void> => {
    const doubt = await heardOfReceipt(machine, { number, by }, (reason) => recordDoubts(machine, reason))
    if (doubt !== undefined) report({ type: 'warning', text: `${doubt}; the next restore will read the whole disk` })
  }
  const [held, staging] = [() => disks.held, () => stager.status()]
  const ready = Promise.withResolvers<void>()
  await open(machine, node, stack, [
    answerOperators(
      { machine, use, reset, version, addresses: () => node.addresses(), staging, heardOf, report },
      stack,
    ),
    operatorMethods({ machine, node, held, report }, stack),
    masterMethods(master, { machine, node, held }),
    siteMethods(machine),
    publishMethods({ machine, node, disks, ready: ready.promise, report, signal }),
    statusMethods({ machine, node: () => node, held, staging, inUse: () => use.inUse }),
  ])
  const offer = await prepare(node, report)
  stepBack(serving)
  await master?.renewNowAndThen(stack)
  const begun = master?.beginTerm(node, signal)
  begun?.catch((error: Error) => report({ type: 'warning', text: `nothing is signed here: ${error.message}` }))
  report({ type: 'listening', peerId: node.peerId, addresses: node.addresses() })
  const offered = await disks.openAll(offer)
  ready.resolve()
  if (offered !== undefined) {
    stager.start(offered)
    stack.adopt(stager, (it) => it.stop())
  }
  await Promise.race([aborted(signal), removed(machine, stack)])
}

/** Rejects when this machine hears that it was taken out of the site. */
function removed(machine: Machine, stack: AsyncDisposableStack): Promise<never> {
  return new Promise((_, reject) => {
    const look = (): void => {
      try {
        machine.assertMember()
      } catch (error) {
        reject(error)
      }
    }
    stack.defer(machine.trust.onChange(look))
    look()
  })
}

/** Opens all parts to members, then to other commands of this machine. */
async function open(
  machine: Machine,
  node: MeshNode,
  stack: AsyncDisposableStack,
  parts: readonly ServicePart[],
): Promise<void> {
  for (const { handlers = {} } of parts)
    for (const [protocol, handler] of Object.entries(handlers)) await node.handle(protocol, handler)
  for (const part of parts) stack.defer(machine.answer(part))
  machine.opened()
}
