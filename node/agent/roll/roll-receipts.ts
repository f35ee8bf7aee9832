import { isMeshError } from '../../../protocol/errors.ts'
import type { MachineState } from '../../../protocol/operate-messages.ts'
import { type Receipt, readReceipt } from '../../../protocol/receipt.ts'
import type { SignedDocument } from '../../../protocol/signed-document.ts'
import type { ReceiptSummary } from '../../roll/receipt-summary.ts'
import { brief, type Roll } from '../../roll/roll.ts'
import type { Operator } from '../operate/operator.ts'

/** The last signed receipt of each machine, as far as it was asked for. */
export class RollReceipts {
  readonly #operator: Operator
  readonly #known = new Map<string, ReceiptSummary>()

  constructor(operator: Operator) {
    this.#operator = operator
  }

  /** Fetches what the machines have had since. */
  async update(states: ReadonlyMap<string, MachineState>): Promise<void> {
    const behind = [...states].filter(
      ([id, { lastReceipt }]) => lastReceipt !== null && this.#known.get(id)?.key !== String(lastReceipt),
    )
    await Promise.all(behind.map(([id, { lastReceipt }]) => this.#fetch(id, lastReceipt ?? 0)))
  }

  seen(id: string): ReceiptSummary | undefined {
    return this.#known.get(id)
  }

  /** The receipts that a roll's document names, by machine. */
  async of(roll: Roll): Promise<Map<string, ReceiptSummary>> {
    const found = new Map<string, ReceiptSummary>()
    const named = roll.machines.filter(({ receipt }) => receipt !== '')
    await Promise.all(
      named.map(async ({ id, receipt }) => {
        if (this.#known.get(id)?.key !== receipt) await this.#fetch(id, Number(receipt))
        const known = this.#known.get(id)
        if (known?.key === receipt) found.set(id, known)
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
function readOf(id: string, number: number, signed: SignedDocument): ReceiptSummary | undefined {
  let receipt: Receipt | undefined
  try {
    receipt = signed.by === id ? readReceipt(signed) : undefined
  } catch (error) {
    if (!isMeshError(error, 'FORMAT_NEWER')) throw error
    // Only this machine's turn fails: one machine must not end the roll of the others.
    const reason = brief(`${error.code}: update mesh on the operator's machine`)
    return { key: String(number), verified: false, reason, release: 0, blocks: 0, seconds: 0, from: [] }
  }
  if (receipt === undefined || receipt.number !== number) return undefined
  const { release, verified, ms, failure, result } = receipt
  const log = result?.log
  return {
    key: String(number),
    verified,
    reason: failure === null ? '' : brief(`${failure.code}: ${failure.message}`),
    release: release ?? 0,
    blocks: result?.blocks.dirty ?? 0,
    seconds: ms / 1000,
    from: result?.peers.map(({ name, blocks }) => ({ name, blocks })) ?? [],
    ...(log === undefined || log.missed === null ? {} : { missed: log.missed }),
  }
}
