import { MeshError } from '../../protocol/errors.ts'
import type { Fleet } from './fleet.ts'
import { ROLL_SILENT_MS, ROLL_TICK_MS } from './limits.ts'
import { hasEnded, isNewer, type Roll } from './roll.ts'
import { failures } from './roll-step.ts'

/** What people may order. */
export type Order = 'pause' | 'resume' | 'abort'

const STATES = { pause: 'paused', resume: 'running', abort: 'aborting' } as const satisfies Record<Order, Roll['state']>

interface OrderOptions {
  readonly fleet: Fleet
  readonly group: string
  /** Name of the machine that the order is given on. */
  readonly by: string
  readonly pause: (ms: number) => Promise<void>
  readonly now: () => number
  /** Whether the operator's answer is waited for. */
  readonly wait: boolean
}

/** The document that counts among those found; undefined if there is none. */
export function newestRoll(rolls: readonly Roll[]): Roll | undefined {
  return rolls.reduce<Roll | undefined>(
    (newest, one) => (newest === undefined || isNewer(one, newest) ? one : newest),
    undefined,
  )
}

/**
 * Gives an order to the operator of a group's roll, wherever it is: the roll's document is stored with another state,
 * and the operator stores its own document after that. `heard`: the operator has done so. Otherwise nobody runs the
 * roll, and whoever goes on with it finds the order. Errors: ROLL_UNKNOWN if the group has no roll, or only one that
 * has ended.
 */
export async function orderRoll(order: Order, options: OrderOptions): Promise<{ roll: Roll; heard: boolean }> {
  const { fleet, group, by, now } = options
  const state = STATES[order]
  const giveUpAt = now() + ROLL_SILENT_MS
  for (let ordered: Roll | undefined; ; ) {
    const roll = newestRoll(await fleet.rolls(group))
    if (roll === undefined || (hasEnded(roll) && ordered === undefined))
      throw new MeshError('ROLL_UNKNOWN', `group ${group} has no roll that runs`)
    if (hasEnded(roll)) return { roll, heard: true }
    if (roll.state !== state && roll.state !== 'aborting') {
      const forgiven = order === 'resume' ? failures(roll) : roll.forgiven
      ordered = { ...roll, sequence: roll.sequence + 1, state, why: `by ${by}`, forgiven }
      await fleet.store(ordered)
    } else if (ordered === undefined) ordered = roll
    else if (isNewer(roll, ordered)) return { roll, heard: true }
    if (!roll.attended || !options.wait || now() > giveUpAt) return { roll: ordered, heard: false }
    await options.pause(ROLL_TICK_MS)
  }
}
