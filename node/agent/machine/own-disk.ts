import { stat } from 'node:fs/promises'
import { MeshError } from '../../../protocol/errors.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import type { ConfiguredMachine } from './options.ts'

/** The managed disk: as it is configured, else as this machine joined with it. Errors: STATE_MISSING and others of the state. */
export async function ownDisk(stateDir: string, configured: ConfiguredMachine = {}): Promise<string> {
  const state = await StateDirectory.open(stateDir, { create: false, readOnly: true })
  const disk = configured.disk ?? state.machine?.disk
  if (disk === undefined)
    throw new MeshError('STATE_MISSING', `${state.directory} belongs to no machine with a disk yet`)
  return disk
}

/**
 * A log of another disk than the one that is restored would be of no use, and would be taken for this one's.
 * Errors: DISK_NOT_OWN, those of {@link ownDisk}.
 */
export async function assertOwnDisk(disk: string, stateDir: string, configured?: ConfiguredMachine): Promise<void> {
  const own = await ownDisk(stateDir, configured)
  const [given, known] = await Promise.all([stat(disk).catch(() => undefined), stat(own).catch(() => undefined)])
  // A missing disk is told of when it is opened.
  if (given === undefined) return
  const same = given.isBlockDevice()
    ? known?.isBlockDevice() === true && given.rdev === known.rdev
    : given.dev === known?.dev && given.ino === known.ino
  if (!same) throw new MeshError('DISK_NOT_OWN', `${disk} is not the disk of this machine, which is ${own}`)
}
