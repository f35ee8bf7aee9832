/**
 * The room `run`: the commands that keep running, `mesh up` and `mesh seed`, and the commands that ask them.
 * `serve` opens the node, merges what the other rooms add to a running command (each a `ServicePart`), and serves until it is stopped.
 * master is the master's part. up and seed say what is offered. status describes a machine; ask-running asks the running command over
 * its control socket, from another process.
 */

import { ControlServer } from '../../control/control-server.ts'
import { HashPool } from '../../disk/hash-pool.ts'
import { recordLogDoubt } from '../log/log-doubt.ts'
import { aborted } from '../machine/aborted.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import type { ServicePart } from '../machine/service-part.ts'
import { rememberReset, rememberServing } from '../machine/settings.ts'
import { MeshNode } from '../mesh/mesh-node.ts'
import { OfferedDisk } from '../offer/offered-disk.ts'
import type { Offer } from '../offer/open-source.ts'
import { limitNode, spareUser, stepBack } from '../offer/serving-limits.ts'
import { answerOperators } from '../operate/answer-operators.ts'
import { operatorMethods } from '../operate/operator-methods.ts'
import { heardOfReceipt } from '../receipts/receipt-floor.ts'
import { diskMethods } from '../release/releases.ts'
import { Stager } from '../stage/stager.ts'
import { Master, masterMethods } from './master.ts'
import { statusMethods } from './status.ts'

/** What {@link serve} takes of a command's options. */
interface ServeOptions
  extends Pick<AgentOptions, 'listen' | 'mdns' | 'serving' | 'reset' | 'fromFile' | 'signal' | 'report'> {
  /** Name of the command, which `mesh status` shows: `up` or `seed`. */
  readonly command: string
}

/**
 * Serves until the signal aborts: the common part of `mesh up` and `mesh seed`.
 * Errors: MEMBER_REMOVED when this machine hears that it was taken out of the site.
 */
export async function serve(machine: Machine, offer: Offer | undefined, options: ServeOptions): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const { command, listen, mdns, report, signal } = options
  const serving = await rememberServing(machine, options)
  const reset = await rememberReset(machine, options)
  stepBack(serving)
  const pool = stack.adopt(new HashPool(), (it) => it.close())
  const master = machine.config.role === 'master' ? await Master.open(machine, report, stack) : undefined
  const started = await MeshNode.start({ machine, listen, mdns, report, enrolment: master?.enrolment })
  const node = stack.adopt(started, (it) => it.stop())
  limitNode(node, serving)
  const use = spareUser(node, serving, report, stack)
  const disk = new OfferedDisk({ machine, node, pool, report, signal })
  const stager = new Stager({ machine, node, config: serving, inUse: () => use.inUse, report })
  const heardOf = async (number: number, by: string): Promise<void> => {
    const doubt = await heardOfReceipt(machine, { number, by }, (reason) => recordLogDoubt(machine.state, reason))
    if (doubt !== undefined) report({ type: 'warning', text: `${doubt}; the next restore will read the whole disk` })
  }
  const [held, staging] = [() => disk.held, () => stager.status()]
  const parts = [
    answerOperators({ machine, use, reset, staging, heardOf, report }, stack),
    operatorMethods({ machine, node, held, report }, stack),
    masterMethods(master, { machine, node, held }),
    statusMethods({ machine, node, command, held, staging, inUse: () => use.inUse }),
    diskMethods(machine, staging),
  ]
  await open(machine.state.directory, node, parts, stack)
  // From here on other commands find this one.
  report({ type: 'listening', peerId: node.peerId, addresses: node.addresses() })
  const offered = offer === undefined ? undefined : await disk.open(offer, stack)
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

/** Opens all parts to members, then to other commands of this machine, until the stack ends. */
async function open(
  stateDir: string,
  node: MeshNode,
  parts: readonly ServicePart[],
  stack: AsyncDisposableStack,
): Promise<void> {
  for (const { handlers = {} } of parts)
    for (const [protocol, handler] of Object.entries(handlers)) await node.handle(protocol, handler)
  const methods: ServicePart['methods'] = Object.assign({}, ...parts.map((part) => part.methods))
  stack.adopt(await ControlServer.listen(stateDir, methods ?? {}), (it) => it.close())
}
