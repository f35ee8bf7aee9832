import { access, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoOf } from '../../../protocol/errors.ts'
import { receiptFile } from './hooks.ts'
import { rememberedMachine } from './remembered-machine.ts'

/** Folder of the machine’s state directory that holds those of its further partitions. */
const PARTITIONS = 'partitions'

/**
 * A managed disk of a machine. The machine’s state directory is that of the first one. A further partition has a state directory for what is about
 * its disk (path, write log, stage); key, trust, receipts and hash trees are those of the machine.
 */
export interface MachineDisk {
  readonly stateDir: string
  readonly image: string
  /** It is restored when somebody chooses it, and started; otherwise at every boot. */
  readonly isSystem: boolean
  /** A restore of it has ended well. */
  readonly wasRestored: boolean
}

/** The state directory of partition `number` of a machine. */
export function partDirectory(stateDir: string, number: number): string {
  return join(stateDir, PARTITIONS, String(number))
}

/** State directories of the further partitions of a machine, in the order of their numbers. */
export async function partDirectories(stateDir: string): Promise<string[]> {
  const names = await readdir(join(stateDir, PARTITIONS)).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  })
  const numbers = names.filter((name) => /^\d+$/.test(name)).map(Number)
  return numbers.sort((a, b) => a - b).map((number) => partDirectory(stateDir, number))
}

/** The managed disks of a machine, that of its system first. Errors: FORMAT_NEWER, STATE_CORRUPT. */
export async function machineDisks(stateDir: string): Promise<MachineDisk[]> {
  const disks: MachineDisk[] = []
  for (const directory of [stateDir, ...(await partDirectories(stateDir))]) {
    const { image, system = directory === stateDir } = (await rememberedMachine(directory)) ?? {}
    if (image === undefined) continue
    const wasRestored = await access(receiptFile(directory)).then(
      () => true,
      () => false,
    )
    disks.push({ stateDir: directory, image, isSystem: system, wasRestored })
  }
  return disks
}
