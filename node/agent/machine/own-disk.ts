import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { MeshError } from '../../../protocol/errors.ts'
import { describeDisk } from '../../disk/known-disk.ts'
import type { MachineConfig } from '../../state/machine-config.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import { chooseDisk } from './choose-disk.ts'
import type { AgentEvent } from './events.ts'
import type { ConfiguredMachine } from './options.ts'

/**
 * Path of the managed disk: what the configuration file says, else the disk that this machine joined with.
 * Errors: STATE_MISSING and others of the state.
 */
export async function ownDisk(stateDir: string, configured: ConfiguredMachine = {}): Promise<string> {
  return (await remembered(stateDir, configured)).disk
}

/**
 * The path at which the managed disk is now, for a monitor. The log of another disk would be taken for the log of the managed one.
 * Errors: DISK_NOT_OWN, those of {@link ownDisk} and {@link chooseDisk}.
 */
export async function requireOwnDisk(
  disk: string,
  stateDir: string,
  options: { readonly configured?: ConfiguredMachine | undefined; readonly report: (event: AgentEvent) => void },
): Promise<string> {
  const machine = await remembered(stateDir, options.configured)
  const own = await chooseDisk(machine, options)
  if (resolve(disk) === machine.disk) return own.path
  const [given, known] = await Promise.all([stat(disk).catch(() => undefined), stat(own.path)])
  // Opening a missing disk says so, later.
  if (given === undefined) return disk
  const same = given.isBlockDevice()
    ? known.isBlockDevice() && given.rdev === known.rdev
    : given.dev === known.dev && given.ino === known.ino
  if (same) return disk
  throw new MeshError(
    'DISK_NOT_OWN',
    `${disk} is not the disk of this machine, which is ${describeDisk(own.path, own.disk)}`,
  )
}

async function remembered(
  stateDir: string,
  configured: ConfiguredMachine = {},
): Promise<MachineConfig & { readonly disk: string }> {
  const state = await StateDirectory.open(stateDir, { create: false, readOnly: true })
  const disk = configured.disk ?? state.machine?.disk
  if (state.machine === undefined || disk === undefined)
    throw new MeshError('STATE_MISSING', `${state.directory} belongs to no machine with a disk yet`)
  return { ...state.machine, disk }
}
