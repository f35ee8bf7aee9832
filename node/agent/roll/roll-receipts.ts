import type { MachineState } from '../../../protocol/operate-messages.ts'
import { readReceipt } from '../../../protocol/receipt-document.ts'
import type { SignedDocument } from '../../../protocol/signed-document.ts'
import { brief, type Roll } from '../../roll/roll.ts'
import type { ReportedReceipt } from '../../roll/roll-report.ts'
import type { SeenReceipt } from '../../roll/roll-step.ts'
import type { Operator } from '../operate/operator.ts'

interface Known {
  readonly number: number
  readonly reason: string
  readonly receipt: ReportedReceipt
}

/** The last signed receipt of each machine, as far as it was asked for. */
export class RollReceipts {
  readonly #operator: Operator
  readonly #known = new Map<string, Known>()

  constructor(operator: Operator) {
    this.#operator = operator
  }

  /** Fetches what the machines have had since. */
  async update(states: ReadonlyMap<string, MachineState>): Promise<void> {
    const behind = [...states].filter(
      ([id, { lastReceipt }]) => lastReceipt !== null && this.#known.get(id)?.number !== lastReceipt,
    )
    await Promise.all(behind.map(([id, { lastReceipt }]) => this.#fetch(id, lastReceipt ?? 0)))
  }

  seen(id: string): SeenReceipt | undefined {
    const known = this.#known.get(id)
    if (known === undefined) return undefined
    const { release, verified } = known.receipt
    return { key: String(known.number), release, verified, reason: known.reason }
  }

  /** The receipts that a roll's document names, by machine. */
  async of(roll: Roll): Promise<Map<string, ReportedReceipt>> {
    const found = new Map<string, ReportedReceipt>()
    const named = roll.machines.filter(({ receipt }) => receipt !== '')
    await Promise.all(
      named.map(async ({ id, receipt }) => {
        if (this.#known.get(id)?.number !== Number(receipt)) await this.#fetch(id, Number(receipt))
        const known = this.#known.get(id)
        if (known?.number === Number(receipt)) found.set(id, known.receipt)
      }),
    )
    return found
  }

  async #fetch(id: string, number: number): Promise<void> {
    const [answer] = await this.#operator.ask([id], { op: 'receipts', since: number - 1 })
    if (answer === undefined || !('reply' in answer)) return
    const one = answer.reply.receipts.find((it) => it.number === number)
    const known = one === undefined ? undefined : readOf(id, one.number, one.document)
    if (known !== undefined) this.#known.set(id, known)
  }
}

/** Only what the machine itself has signed counts as its receipt. */
function readOf(id: string, number: number, signed: SignedDocument): Known | undefined {
  const record = signed.by === id ? readReceipt(signed) : undefined
  if (record === undefined || record.number !== number) return undefined
  const { release, verified, ms, failure, result } = record
  const log = result?.log
  return {
    number,
    reason: failure === null ? '' : brief(`${failure.code}: ${failure.message}`),
    receipt: {
      verified,
      release: release ?? 0,
      blocks: result?.blocks.dirty ?? 0,
      seconds: ms / 1000,
      from: result?.peers.map(({ name, blocks }) => ({ name, blocks })) ?? [],
      ...(log === undefined || log.missed === null ? {} : { missed: log.missed }),
    },
  }
}
