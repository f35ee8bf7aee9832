import { toHex } from '../../../protocol/digest.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { readLogConfig } from '../log/log-config.ts'
import { peekLog } from '../log/log-peek.ts'
import { chooseDisk } from '../machine/choose-disk.ts'
import { readDiskState } from '../machine/disk-state.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import type { Offer } from '../offer/open-source.ts'
import { serve } from './serve.ts'

/** `mesh up`: serves this machine's image to the others until the signal aborts. Errors: MEMBER_REMOVED, and those of {@link serve}. */
export async function up(options: AgentOptions): Promise<void> {
  const machine = await Machine.open(options.stateDir, { ...options, opening: true })
  try {
    machine.assertMember()
    await useOwnDisk(machine, options)
    await serve(machine, () => currentOffer(machine), options)
  } finally {
    await machine.close()
  }
}

/** The master that serves a copy does not use its disk. */
async function useOwnDisk(machine: Machine, { report }: AgentOptions): Promise<void> {
  if (machine.config.disk === undefined || machine.config.image === undefined) return
  if ((await readDiskState(machine.state))?.servedFrom !== undefined) return
  machine.useDisk((await chooseDisk(machine.config, { report })).path)
}

/**
 * What the disk is believed to hold: the release it was last restored to (or published from), which may be older than the
 * newest one; others may still need it.
 */
async function currentOffer(machine: Machine): Promise<Offer | undefined> {
  if (machine.config.disk === undefined || machine.config.image === undefined) return undefined
  const disk = await readDiskState(machine.state)
  const path = disk?.servedFrom ?? machine.config.disk
  const restored = disk === undefined ? undefined : machine.trust.view().release(disk.image, disk.release)
  if (restored === undefined) return { manifest: machine.manifest(), path, whole: false }
  return { manifest: restored, path, whole: disk?.state === 'whole' || (await isLogged(machine, path, restored)) }
}

/** Whether the write log says which blocks of the release the disk holds, so that a scan is not needed. */
async function isLogged(machine: Machine, path: string, manifest: VerifiedManifest): Promise<boolean> {
  const config = await readLogConfig(machine.state.directory)
  if (config === undefined || path !== machine.config.disk) return false
  const log = await peekLog(config, path)
  return log.state === 'known' && log.root === toHex(manifest.root)
}
