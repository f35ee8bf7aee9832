import { stat } from 'node:fs/promises'
import { MeshError } from '../../../protocol/errors.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import type { ConfiguredMachine } from './options.ts'

/**
 * Path of the managed disk: what the configuration file says, else the disk that this machine joined with.
 * Errors: STATE_MISSING and others of the state.
 */
export async function ownDisk(stateDir: string, configured: ConfiguredMachine = {}): Promise<string> {
  const state = await StateDirectory.open(stateDir, { create: false, readOnly: true })
  const disk = configured.disk ?? state.machine?.disk
  if (disk === undefined)
    throw new MeshError('STATE_MISSING', `${state.directory} belongs to no machine with a disk yet`)
  return disk
}

/**
 * Checks that a monitor is set up for the managed disk. The log of another disk would be taken for the log of the managed one.
 * Errors: DISK_NOT_OWN, those of {@link ownDisk}.
 */
export async function assertOwnDisk(disk: string, stateDir: string, configured?: ConfiguredMachine): Promise<void> {
  const own = await ownDisk(stateDir, configured)
  const [given, known] = await Promise.all([stat(disk).catch(() => undefined), stat(own).catch(() => undefined)])
  // Opening a missing disk says so, later.
  if (given === undefined) return
  const same = given.isBlockDevice()
    ? known?.isBlockDevice() === true && given.rdev === known.rdev
    : given.dev === known?.dev && given.ino === known.ino
  if (!same) throw new MeshError('DISK_NOT_OWN', `${disk} is not the disk of this machine, which is ${own}`)
}
