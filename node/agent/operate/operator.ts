/**
 * The room `operate`: the master and operators' machines ask the others. Some files, a few words each:
 * operator — `Operator` is what a command of an operator uses to reach the machines, through the running command or by its own node;
 * ask-machines — `AskMachines` asks over the network, in whichever process has a node;
 * asked-methods — the control methods by which an `Operator` in another process uses the node of this one; operator-methods — these,
 * and the gathering of receipts, of a command that keeps running;
 * answer-operators — the other side: what a machine answers when it is asked, and that it resets itself.
 * holders tells who holds which blocks. list-receipts is `mesh receipts`, look-at-lab is `mesh lab`.
 */

import { MAX_MEMBERS } from '../../../protocol/constants.ts'
import { ERROR_CODES, isMeshError, MeshError } from '../../../protocol/errors.ts'
import { isRecord, list } from '../../../protocol/json-shape.ts'
import type { OperateRequest } from '../../../protocol/operate-messages.ts'
import { type RollDocument, readRoll, signRoll } from '../../../protocol/roll-document.ts'
import type { SignedDocument } from '../../../protocol/signed-document.ts'
import { callControl } from '../../control/control-client.ts'
import type { Answer, Ask } from '../../operate/ask.ts'
import type { Member } from '../../trust/members.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { statusMethods } from '../answer/status.ts'
import type { AgentEvent } from '../machine/events.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { askWork, isServer } from '../machine/work.ts'
import { firstNews } from '../mesh/first-news.ts'
import { MeshNode } from '../mesh/mesh-node.ts'
import { type Gathered, isGathered, ReceiptGatherer } from '../receipts/receipt-gatherer.ts'
import { type AnswerJson, AskMachines, answerShape } from './ask-machines.ts'
import { askedMethods } from './asked-methods.ts'
import { decodeHolder, type Holder, holdersOf, isHolderJson } from './holders.ts'
import { GATHER_WAIT_MS, OPERATOR_BATCH, OPERATOR_CONNECT_MS } from './limits.ts'

/** What an {@link Operator} takes of a command's options. */
type OperatorOptions = Pick<AgentOptions, 'stateDir' | 'command' | 'listen' | 'mdns' | 'report' | 'signal'>

/** The way to the other machines. */
interface Reach {
  readonly ask: Ask
  readonly holders: (root: string) => Promise<Holder[]>
  readonly gather: () => Promise<Gathered>
}

/** This machine, and the way from it to the others, until the stack ends. */
interface Way {
  machine: Machine
  readonly reach: Reach
  /** The reach is that of another process. `ends`: that process may end before this one, because it only runs a roll or asks. */
  readonly through: 'server' | 'ends' | 'own node'
  readonly stack: AsyncDisposableStack
}

/**
 * What commands of the master and of operators use to reach the other machines: the `mesh up` or `mesh seed` that runs here, or the
 * roll; or a node of their own if none does.
 */
export class Operator {
  readonly #options: OperatorOptions
  #way: Way
  #again: Promise<Way> | undefined

  private constructor(options: OperatorOptions, way: Way) {
    this.#options = options
    this.#way = way
  }

  /** Errors: NOT_AN_OPERATOR; STATE_MISSING and others of {@link Machine.open}; STATE_BUSY; PORT_TAKEN. */
  static async open(options: OperatorOptions): Promise<Operator> {
    return new Operator(options, await findWay(options))
  }

  /** This machine. */
  get self(): { readonly id: string; readonly name: string } {
    return this.#way.machine.config
  }

  /** This machine's state directory. */
  get directory(): string {
    return this.#way.machine.state.directory
  }

  /** A release of the site, as {@link Machine.manifest}. Errors: IMAGE_UNKNOWN. */
  manifest(image?: string, release?: number): VerifiedManifest {
    return this.#way.machine.manifest(image, release)
  }

  /** All members of the site but this one, as the signed list names them now. */
  async members(): Promise<readonly Member[]> {
    const { id: self } = this.self
    return (await this.everyone()).filter(({ id }) => id !== self)
  }

  /** All members of the site, as the signed list names them now. */
  async everyone(): Promise<readonly Member[]> {
    // A running command may have taken over a newer list since this one was read.
    if (this.#way.through !== 'own node') this.#way.machine = await Machine.look(this.directory)
    return this.#way.machine.trust.view().members
  }

  /** Who holds what of the image with this root (hexadecimal), of the machines connected now. */
  holders(root: string): Promise<Holder[]> {
    return this.#use((reach) => reach.holders(root))
  }

  /** Asks each of the peers, all at the same time; who cannot be asked, or refuses, answers with the error. */
  async ask<R extends OperateRequest>(peers: readonly string[], request: R): Promise<Answer<R['op']>[]> {
    return this.#use((reach) => reach.ask(peers, request))
  }

  /** Events of this command, which others ask for. */
  telling(report: (event: AgentEvent) => void): (event: AgentEvent) => void {
    return this.#way.machine.telling(report)
  }

  /** Gathers the receipts of all machines that can be reached, for GATHER_WAIT_MS at most. */
  gatherReceipts(): Promise<Gathered> {
    return this.#use((reach) => reach.gather())
  }

  /** Signs a roll document in this machine's name, for `roll-put`. */
  async signRoll(document: RollDocument): Promise<SignedDocument> {
    return signRoll(document, await this.#way.machine.key())
  }

  /** A roll document that a machine told of, if the master or an operator has signed it. */
  readRoll(signed: SignedDocument): RollDocument | undefined {
    return this.#way.machine.isOperator(signed.by) ? readRoll(signed) : undefined
  }

  async close(): Promise<void> {
    await this.#way.stack.disposeAsync()
  }

  /** If the command has ended that was asked, such as a roll that heard an order, this one goes on by itself. */
  async #use<T>(ask: (reach: Reach) => Promise<T>): Promise<T> {
    try {
      return await ask(this.#way.reach)
    } catch (error) {
      if (this.#way.through === 'server' || !isMeshError(error, 'STATE_NOT_RUNNING')) throw error
      this.#again ??= findWay(this.#options)
      this.#way = await this.#again
      return ask(this.#way.reach)
    }
  }
}

/** Errors: as {@link Operator.open}. */
async function findWay(options: OperatorOptions): Promise<Way> {
  await using stack = new AsyncDisposableStack()
  const { stateDir, command, report } = options
  const isRun = await isRunning(stateDir)
  const opened = isRun ? Machine.look(stateDir) : Machine.open(stateDir, { command, report })
  const machine = stack.adopt(await opened, (it) => it.close())
  const { id, name } = machine.config
  if (!machine.isOperator(id))
    throw new MeshError('NOT_AN_OPERATOR', `${name} is neither the master nor an operator’s machine`)
  const reach = isRun ? throughSocket(stateDir) : await throughOwnNode(machine, options, stack)
  const holder = isRun ? await askWork(stateDir) : undefined
  const server = holder === undefined || isServer(holder)
  return { machine, reach, through: !isRun ? 'own node' : server ? 'server' : 'ends', stack: stack.move() }
}

async function isRunning(stateDir: string): Promise<boolean> {
  try {
    await callControl(stateDir, 'operate', list(isRecord, 0), { peers: [], request: { op: 'state' } })
    return true
  } catch (error) {
    if (isMeshError(error, 'STATE_NOT_RUNNING')) return false
    throw error
  }
}

function throughSocket(stateDir: string): Reach {
  const holders = async (root: string): Promise<Holder[]> =>
    (await callControl(stateDir, 'holders', list(isHolderJson, MAX_MEMBERS), { root })).map(decodeHolder)
  const gather = (): Promise<Gathered> => callControl(stateDir, 'gather', isGathered)
  return { ask: askThroughSocket(stateDir), holders, gather }
}

function askThroughSocket(stateDir: string): Ask {
  return async <R extends OperateRequest>(peers: readonly string[], request: R) => {
    const isAnswers = list(answerShape<R['op']>(request.op), OPERATOR_BATCH)
    const batches: Promise<readonly AnswerJson<R['op']>[]>[] = []
    for (let at = 0; at < peers.length; at += OPERATOR_BATCH) {
      const batch = peers.slice(at, at + OPERATOR_BATCH)
      batches.push(callControl(stateDir, 'operate', isAnswers, { peers: batch, request }))
    }
    return (await Promise.all(batches)).flat().map((answer): Answer<R['op']> => {
      if ('reply' in answer) return answer
      const code = ERROR_CODES.find((known) => known === answer.error.code) ?? 'PROTOCOL_VIOLATION'
      return { id: answer.id, error: new MeshError(code, answer.error.message) }
    })
  }
}

async function throughOwnNode(
  machine: Machine,
  { listen, mdns, report, signal }: Omit<OperatorOptions, 'stateDir'>,
  stack: AsyncDisposableStack,
): Promise<Reach> {
  const node = stack.adopt(await MeshNode.start({ machine, listen, mdns, report }), (it) => it.stop())
  const machines = stack.adopt(new AskMachines(machine, node), (it) => it.close())
  const ask: Ask = (peers, request) => machines.ask(peers, request)
  const warn = (text: string): void => report({ type: 'warning', text })
  const gatherer = new ReceiptGatherer({ machine, ask, warn })
  // A roll takes hours, and is looked at and paused from other terminals.
  stack.defer(machine.answer(askedMethods({ machine, node, machines, gatherer })))
  stack.defer(machine.answer(statusMethods({ machine, node: () => node })))
  // Who is a member is what the first peer's metadata says, if that is newer.
  await firstNews(node, OPERATOR_CONNECT_MS, signal)
  signal.addEventListener('abort', () => machines.close(), { once: true })
  const holders = async (root: string): Promise<Holder[]> => holdersOf(root, machine, node)
  return { ask, holders, gather: () => gatherer.gather(GATHER_WAIT_MS) }
}
