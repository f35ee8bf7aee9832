import { MeshError } from '../../../protocol/errors.ts'
import { sameName } from '../../../protocol/names.ts'
import { nearestWord } from '../../../protocol/nearest-word.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { type ListedReceipt, ReceiptArchive } from '../receipts/receipt-archive.ts'
import { judgeTimes, listedAt, type TimedReceipt } from '../receipts/receipt-time.ts'
import { listWentBack, type WentBack } from '../receipts/went-back.ts'
import { Operator } from './operator.ts'

/** Which receipts `mesh receipts` is to list. */
interface ReceiptsOptions extends AgentOptions {
  /** Unix ms: restores that are listed by an earlier time are left out. */
  readonly since?: number
  /** Name of the machine, the present or an earlier one. */
  readonly machine?: string
  /** Fetch first what other machines have; only on the master and operators' machines. */
  readonly now: boolean
}

/** Result of `mesh receipts`. */
interface Receipts {
  readonly event: 'receipts'
  /** In the order of the times that they are listed by ({@link listedAt}). */
  readonly receipts: readonly TimedReceipt[]
  /** Machines that told other receipts than before. */
  readonly wentBack: readonly WentBack[]
}

/** `mesh receipts`: what this machine has of its own, and on the master and operators' machines of all the others. Errors: NOT_A_MEMBER. */
export async function receipts(options: ReceiptsOptions): Promise<Receipts> {
  if (options.now) await gatherNow(options)
  const machine = await Machine.read(options.stateDir)
  const [found, wentBack, members] = await readAll(machine).finally(() => machine.close())
  if (options.machine !== undefined) assertKnown(options.machine, [...found.flatMap(namesOf), ...members])
  const isShown = ({ machine }: WentBack): boolean =>
    options.machine === undefined || sameName(machine, options.machine)
  const receipts = judgeTimes(found).filter((one) => isWanted(one, options))
  return { event: 'receipts', receipts, wentBack: wentBack.filter(isShown) }
}

async function gatherNow(options: ReceiptsOptions): Promise<void> {
  const operator = await Operator.open(options)
  try {
    const { reached } = await operator.gatherReceipts()
    const missing = (await operator.members()).filter(({ name }) => !reached.includes(name))
    const names = missing.map(({ name }) => name).join(', ')
    if (missing.length > 0)
      options.report({ type: 'note', text: `not reached: ${names}; what they have to tell is missing` })
  } finally {
    await operator.close()
  }
}

async function readAll(machine: Machine): Promise<[ListedReceipt[], WentBack[], string[]]> {
  const view = machine.trust.view()
  const memberName = (id: string): string | undefined => view.memberById(id)?.name
  const receipts = await new ReceiptArchive(machine.home).list(memberName)
  return [receipts, await listWentBack(machine), view.members.map(({ name }) => name)]
}

/** The present name of the machine, and that of then. */
const namesOf = ({ machine, named = machine }: ListedReceipt): string[] => [machine, named]

/** Errors: NOT_A_MEMBER. */
function assertKnown(name: string, known: readonly string[]): void {
  if (known.some((one) => sameName(one, name))) return
  const near = nearestWord(name, known)
  const hint = near === undefined ? '' : `; did you mean ${near}?`
  throw new MeshError('NOT_A_MEMBER', `no machine named ${name} is or was a member${hint}`)
}

/** A restore of which nobody knows when it was may have been since then. */
function isWanted(receipt: TimedReceipt, { machine, since }: ReceiptsOptions): boolean {
  if (machine !== undefined && !namesOf(receipt).some((name) => sameName(name, machine))) return false
  return since === undefined || (listedAt(receipt) ?? since) >= since
}
