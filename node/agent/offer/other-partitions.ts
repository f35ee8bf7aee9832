import { isMeshError } from '../../../protocol/errors.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import { chooseDisk } from '../machine/choose-disk.ts'
import { readDiskState } from '../machine/disk-state.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { partDirectories } from '../machine/parts.ts'
import type { Offer } from './open-source.ts'

/** What a machine can offer of its further partitions: the releases that they were restored to. What is not there is told in a warning. */
export async function otherPartitions(machine: Machine, report: (event: AgentEvent) => void): Promise<Offer[]> {
  const offers: Offer[] = []
  const own = machine.state.directory
  for (const directory of (await partDirectories(own)).filter((one) => one !== own)) {
    try {
      const offer = await offerOf(machine, directory, report)
      if (offer !== undefined) offers.push(offer)
    } catch (error) {
      if (!isMeshError(error)) throw error
      report({ type: 'warning', text: `the partition of ${directory} is not offered: ${error.message}` })
    }
  }
  return offers
}

/** Undefined if it was not restored yet. Errors: those of its state directory, and of the disk. */
async function offerOf(
  { trust }: Machine,
  directory: string,
  report: (event: AgentEvent) => void,
): Promise<Offer | undefined> {
  const state = await StateDirectory.open(directory, { create: false })
  try {
    const held = await readDiskState(state)
    const manifest = held === undefined ? undefined : trust.view().release(held.image, held.release)
    if (held === undefined || manifest === undefined) return undefined
    const { path } = await chooseDisk(state.machine ?? {}, { report })
    return { manifest, path, whole: held.state === 'whole' }
  } finally {
    await state.close()
  }
}
