import { setTimeout as sleep } from 'node:timers/promises'
import { MAX_MEMBERS, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { isMeshError, type MeshError } from '../../../protocol/errors.ts'
import { type Check, list, literal, natural, object, text } from '../../../protocol/json-shape.ts'
import type { SignedReceipt } from '../../../protocol/operate-messages.ts'
import { readReceipt } from '../../../protocol/receipt.ts'
import type { Ask } from '../../operate/ask.ts'
import type { Member } from '../../trust/members.ts'
import type { Machine } from '../machine/machine.ts'
import { GATHER_ARRIVED_MS, GATHER_PAGES, GATHER_TICK_MS } from './limits.ts'
import { ReceiptArchive } from './receipt-archive.ts'
import { describeWentBack, keepWentBack, noteWentBack } from './went-back.ts'

interface GathererOptions {
  readonly machine: Machine
  readonly ask: Ask
  readonly warn: (text: string) => void
}

/** What came of one round. */
export interface Gathered {
  readonly event: 'gathered'
  readonly receipts: number
  /** Names of machines that told all they have. */
  readonly reached: readonly string[]
}

/** What a command of another version answers to `gather` must be this. */
export const isGathered: Check<Gathered> = object({
  event: literal('gathered'),
  receipts: natural(),
  reached: list(text(MAX_TEXT_BYTES), MAX_MEMBERS),
})

/** Fetches the receipts of other machines that this one does not have yet, proves them, and keeps them. */
export class ReceiptGatherer {
  readonly #options: GathererOptions
  readonly #archive: ReceiptArchive
  /** Machines whose receipts were no good are not asked again while this program runs. */
  readonly #doubted = new Set<string>()
  /** Machines that have come lately. */
  readonly #arrived = new Set<string>()
  /** The member list that the archive was last cleaned by. */
  #known: readonly Member[] | undefined
  #timers: NodeJS.Timeout[] = []
  /** One round after the other. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: GathererOptions) {
    this.#options = options
    this.#archive = new ReceiptArchive(options.machine.state)
  }

  /** From now on gathers now and then, and from each machine that comes. */
  start(): void {
    const all = setInterval(() => this.#attempt(this.gather()), GATHER_TICK_MS)
    const arrived = setInterval(() => {
      const ids = new Set(this.#arrived)
      this.#arrived.clear()
      if (ids.size > 0) this.#attempt(this.#turn(({ id }) => ids.has(id), newRound()))
    }, GATHER_ARRIVED_MS)
    this.#timers = [all, arrived]
  }

  /** A machine was connected; after a restore it has something to tell. */
  noticed(id: string): void {
    if (this.#timers.length > 0) this.#arrived.add(id)
  }

  async stop(): Promise<void> {
    for (const timer of this.#timers.splice(0)) clearInterval(timer)
    await this.#last
  }

  /** Asks all members, and says after `waitMs` at most what came of it so far. Errors: NOT_AN_OPERATOR, DISK_FULL. */
  async gather(waitMs?: number): Promise<Gathered> {
    const round = newRound()
    const done = this.#turn(() => true, round)
    await (waitMs === undefined ? done : Promise.race([done, sleep(waitMs, undefined, { ref: false })]))
    return { event: 'gathered', ...round }
  }

  #turn(isWanted: (member: Member) => boolean, round: Round): Promise<void> {
    const turn = this.#last.then(() => this.#gather(isWanted, round))
    this.#last = turn.catch(() => undefined)
    return turn
  }

  #attempt(round: Promise<unknown>): void {
    round.catch((error: Error) => this.#options.warn(`receipts could not be gathered: ${error.message}`))
  }

  async #gather(isWanted: (member: Member) => boolean, round: Round): Promise<void> {
    const { machine } = this.#options
    const { members } = machine.trust.view()
    if (members !== this.#known) {
      const ids = new Set([machine.config.id, ...members.map(({ id }) => id)])
      await this.#archive.keepOnly(ids)
      await keepWentBack(machine, ids)
    }
    this.#known = members
    const others = members.filter((one) => one.id !== machine.config.id && !this.#doubted.has(one.id) && isWanted(one))
    await Promise.all(
      others.map(async (member) => {
        if (await this.#gatherFrom(member, round)) round.reached.push(member.name)
      }),
    )
  }

  /** Returns whether the machine has told all it has. */
  async #gatherFrom(member: Member, round: Round): Promise<boolean> {
    const last = await this.#archive.last(member.id)
    // The last one is asked for once more: whether the machine still has it.
    let since = last === undefined ? 0 : last.number - 1
    for (let page = 0; page < GATHER_PAGES; page++) {
      const [answer] = await this.#options.ask([member.id], { op: 'receipts', since })
      if (answer === undefined || 'error' in answer) return false
      const { more } = answer.reply
      let { receipts } = answer.reply
      if (page === 0 && last !== undefined) {
        since = last.number
        if (!(await this.#goesOn(member, last, receipts[0]))) continue
        receipts = receipts.filter(({ number }) => number > last.number)
      }
      const good: SignedReceipt[] = []
      let newer: MeshError | undefined
      for (const one of receipts) {
        const judged = judge(member, one)
        if (judged === 'good' && one.number > since) good.push(one)
        else if (isMeshError(judged)) newer = judged
      }
      if (good.length > 0) await this.#archive.add(member, good)
      round.receipts += good.length
      if (good.length < receipts.length || (more && good.length === 0)) {
        this.#doubted.add(member.id)
        const bad = receipts.length - good.length
        this.#options.warn(
          newer === undefined
            ? `${bad} receipts of ${member.name} are forged or damaged; they are dropped: look at that machine`
            : `${bad} receipts of ${member.name} are left there: ${newer.message}`,
        )
        return false
      }
      since = good.at(-1)?.number ?? since
      if (!more) return true
    }
    return false
  }

  /**
   * Whether the receipts of a machine go on behind the last one that it told; `first` is the first that it has from there on. If they
   * do not, the machine is asked for newer ones all the same, and learns by that what is known of it.
   */
  async #goesOn(member: Member, last: SignedReceipt, first: SignedReceipt | undefined): Promise<boolean> {
    // It keeps so many only, and may have forgotten that one.
    if (first !== undefined && first.number > last.number) return true
    if (first?.number === last.number && first.document.text === last.document.text) return true
    // What is forged is told apart, and proves nothing.
    const now = first !== undefined && judge(member, first) === 'good' ? first : undefined
    if (await noteWentBack(this.#options.machine, member, last, now))
      this.#options.warn(describeWentBack({ machine: member.name, number: last.number }))
    return false
  }
}

interface Round {
  receipts: number
  readonly reached: string[]
}

function newRound(): Round {
  return { receipts: 0, reached: [] }
}

/**
 * Whether a receipt was signed by the machine that told of it; or why this version cannot tell. The key says whose it is: a machine
 * that was renamed has receipts of its old name.
 */
function judge(member: Member, { number, document }: SignedReceipt): 'good' | 'bad' | MeshError {
  if (document.by !== member.id) return 'bad'
  try {
    const receipt = readReceipt(document)
    return receipt !== undefined && receipt.number === number ? 'good' : 'bad'
  } catch (error) {
    if (!isMeshError(error, 'FORMAT_NEWER')) throw error
    return error
  }
}
