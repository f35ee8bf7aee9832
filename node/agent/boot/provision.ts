import { rm } from 'node:fs/promises'
import type { Digest } from '../../../protocol/digest.ts'
import type { AgentOptions } from '../machine/options.ts'
import { type Enrolled, enrol } from '../mesh/enrol.ts'
import type { BareDisk } from './bare-disk.ts'
import { type BiosLoader, layOutDisk } from './lay-out-disk.ts'

/** Options of provisioning a bare machine. */
interface ProvisionOptions extends AgentOptions {
  /** Folder in memory where the machine’s state begins; it goes into the disk, and is removed. */
  readonly stateDir: string
  readonly siteId: Digest
  /** Multiaddrs of the master, besides multicast DNS. */
  readonly master: readonly string[]
  readonly disk: BareDisk
  readonly loader: BiosLoader
  /** Called when the machine is let in, before its disk is written to. What it puts into `stateDir` goes into the disk. */
  readonly laying: () => Promise<void>
}

/**
 * Makes a bare machine one of the site: it asks to be let in, waits for that, and has its disk laid out, with its key and what it
 * has become in the state partition. All of that is on the disk at one moment, or none. Errors: those of {@link enrol}, of the layout, and of
 * {@link layOutDisk}; nothing was written to the disk before the machine was let in, nor if the disk holds something and the approval
 * does not say that it may be wiped.
 */
export async function provision(options: ProvisionOptions): Promise<Enrolled> {
  const { disk, stateDir, loader, laying } = options
  const { path } = disk.disk
  const enrolled = await enrol({ ...options, disk: path, toLayOut: disk, force: false, newIdentity: false })
  await laying()
  await layOutDisk(path, disk.plan, { stateDir, loader })
  await rm(stateDir, { recursive: true, force: true })
  return enrolled
}
