import { MAX_MEMBERS, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { type Check, list, type Optional, object, optional, type Shaped, text } from '../../../protocol/json-shape.ts'
import { sameName } from '../../../protocol/names.ts'
import { callControl } from '../../control/control-client.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { isListedReceipt, type ListedReceipt, ReceiptArchive } from '../receipts/receipt-archive.ts'
import { judgeTimes, listedAt, type TimedReceipt } from '../receipts/receipt-time.ts'
import { isWentBack, listWentBack, type WentBack } from '../receipts/went-back.ts'
import { RECEIPTS_PER_CONTROL_PAGE } from './limits.ts'
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

/** Receipts, and the key behind which the next page begins; absent from the last one. The first page has `wentBack`. */
const isPage = object({
  receipts: list(isListedReceipt, RECEIPTS_PER_CONTROL_PAGE),
  next: optional(text(MAX_TEXT_BYTES)),
  wentBack: optional(list(isWentBack, MAX_MEMBERS)),
})
type Page = Shaped<{
  receipts: Check<readonly ListedReceipt[]>
  next: Optional<string>
  wentBack: Optional<readonly WentBack[]>
}>

/** `mesh receipts`: what this machine has of its own, and on the master and operators' machines of all the others. */
export async function receipts(options: ReceiptsOptions): Promise<Receipts> {
  if (options.now) await gatherNow(options)
  const found: ListedReceipt[] = []
  const wentBack: WentBack[] = []
  for await (const page of pages(options.stateDir)) {
    found.push(...page.receipts)
    wentBack.push(...(page.wentBack ?? []))
  }
  const isShown = ({ machine }: WentBack): boolean =>
    options.machine === undefined || sameName(machine, options.machine)
  const receipts = judgeTimes(found).filter((one) => isWanted(one, options))
  return { event: 'receipts', receipts, wentBack: wentBack.filter(isShown) }
}

async function gatherNow(options: ReceiptsOptions): Promise<void> {
  const operator = await Operator.open(options)
  try {
    const warn = (text: string): void => options.report({ type: 'warning', text })
    const { reached } = await operator.gatherReceipts(warn)
    const missing = (await operator.members()).filter(({ name }) => !reached.includes(name))
    const names = missing.map(({ name }) => name).join(', ')
    if (missing.length > 0)
      options.report({ type: 'note', text: `not reached: ${names}; what they have to tell is missing` })
  } finally {
    await operator.close()
  }
}

/** Receipts behind the key `after`; with the first page, the machines whose receipts went back. */
export async function receiptPage(machine: Machine, after: string): Promise<Page> {
  const memberName = (id: string): string | undefined => machine.trust.view().memberById(id)?.name
  const page = await new ReceiptArchive(machine.state).list(after, RECEIPTS_PER_CONTROL_PAGE, memberName)
  return after === '' ? { ...page, wentBack: await listWentBack(machine) } : page
}

/** From the running command if there is one, else from the state directory. */
async function* pages(stateDir: string): AsyncGenerator<Page> {
  await using stack = new AsyncDisposableStack()
  let list = (after: string): Promise<Page> => callControl(stateDir, 'receipts', isPage, { after })
  let page = await list('').catch(async (error: unknown) => {
    if (!isMeshError(error, 'STATE_NOT_RUNNING')) throw error
    const machine = stack.adopt(await Machine.open(stateDir, { orCopy: true }), (it) => it.close())
    list = (after) => receiptPage(machine, after)
    return list('')
  })
  yield page
  while (page.next !== undefined) {
    page = await list(page.next)
    yield page
  }
}

/** A restore of which nobody knows when it was may have been since then. */
function isWanted(receipt: TimedReceipt, { machine, since }: ReceiptsOptions): boolean {
  const names = [receipt.machine, receipt.named ?? receipt.machine]
  if (machine !== undefined && !names.some((name) => sameName(name, machine))) return false
  return since === undefined || (listedAt(receipt) ?? since) >= since
}
