import { type Check, natural, object } from '../../../protocol/json-shape.ts'
import type { Shelf } from '../../state/shelf.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'
import type { Machine } from '../machine/machine.ts'
import { ReceiptArchive } from './receipt-archive.ts'

/** The highest number of a receipt of this machine that others have told of. */
interface ReceiptFloor {
  readonly number: number
}

const KEY = 'own'
const isFloor: Check<ReceiptFloor> = object({ number: natural() })

const shelfOf = (state: StateDirectory): Shelf<ReceiptFloor> =>
  state.shelf('receipt-floor', storedDocument('the highest number of a receipt', isFloor))

/**
 * The number of the newest receipt of this machine: its own newest, or a higher one that others hold of it. Others hold a higher one
 * if the state directory of this machine went back in time.
 */
export async function newestNumber({ home: state, config }: Machine): Promise<number> {
  const own = (await new ReceiptArchive(state).last(config.id))?.number ?? 0
  const floor = (await shelfOf(state).get(KEY))?.number ?? 0
  return Math.max(own, floor)
}

/**
 * Notes that somebody holds a receipt of this machine with that number. Returns why the write log must not be believed, if this machine
 * did not know of such a receipt: what was written before that receipt is not in a log that is older. `record` makes the doubt durable,
 * before the number is, which would be no news after a crash. Durable when it resolves.
 */
export async function heardOfReceipt(
  machine: Machine,
  { number, by }: { readonly number: number; readonly by: string },
  record: (doubt: string) => Promise<void>,
): Promise<string | undefined> {
  const own = await newestNumber(machine)
  if (number <= own) return undefined
  const doubt = `${by} has receipt ${number} of this machine, which knows of ${own}: the state directory went back in time`
  await record(doubt)
  await shelfOf(machine.home).putDurable(KEY, { number })
  return doubt
}
