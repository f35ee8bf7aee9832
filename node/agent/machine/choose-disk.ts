import { realpath } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { compareDisks, mergeDisks, sameName } from '../../disk/compare-disks.ts'
import { type FoundDisk, findDisk } from '../../disk/find-disk.ts'
import { describeDisk, type KnownDisk } from '../../disk/known-disk.ts'
import { readDisk } from '../../disk/read-disk.ts'
import type { MachineConfig } from '../../state/machine-config.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import type { AgentEvent } from './events.ts'

interface ChooseDiskOptions {
  /** Path that the user gives this time; default: the path that is remembered. */
  readonly given?: string | undefined
  /** The disk at that path is the machine's from now on, whatever it is. */
  readonly acceptNew?: boolean
  readonly report: (event: AgentEvent) => void
}

/** What a machine is remembered to have. */
type Remembered = Pick<MachineConfig, 'disk' | 'diskIdentity'>

/**
 * The managed disk, found by what the hardware and the partition table say: at its path, or under another name that it has now. A
 * machine that does not know its disk yet takes the path's word for it. Reads only.
 * Errors: DISK_OTHER, DISK_AMBIGUOUS, STATE_MISSING, DISK_MISSING, DISK_UNREADABLE, DISK_NOT_A_DISK.
 */
export async function chooseDisk(remembered: Remembered, options: ChooseDiskOptions): Promise<FoundDisk> {
  const { diskIdentity: known } = remembered
  const path = options.given ?? remembered.disk
  if (path === undefined) throw new MeshError('STATE_MISSING', 'no disk is set for this machine')
  if (known === undefined || options.acceptNew === true) return { path, disk: await readDisk(path) }
  const there = await readDisk(path).catch((error: unknown) => {
    if (isMeshError(error, 'DISK_MISSING')) return error
    throw error
  })
  if (path !== remembered.disk) return newPath(remembered, known, path, there)
  if (there instanceof MeshError) {
    const elsewhere = only(known, remembered, await findDisk(known))
    if (elsewhere === undefined) throw there
    return takeElsewhere(elsewhere, `${path} is not there`, options)
  }
  return atItsPath(known, { path, disk: there }, remembered, options)
}

/** Another path than before is taken for the same disk only. */
function newPath({ disk }: Remembered, known: KnownDisk, path: string, there: KnownDisk | MeshError): FoundDisk {
  if (there instanceof MeshError) throw there
  if (compareDisks(known, there) === 'same') return { path, disk: there }
  throw otherDisk({ path, disk: there }, disk ?? 'unknown', known)
}

async function atItsPath(
  known: KnownDisk,
  there: FoundDisk,
  remembered: Remembered,
  options: ChooseDiskOptions,
): Promise<FoundDisk> {
  const likeness = compareDisks(known, there.disk)
  // An image file that was put in another one's place is its user's business; only its write log is not believed.
  if (likeness === 'same' || (likeness === 'untold' && there.disk.kind === 'file')) return there
  const own = await realpath(there.path)
  const here = own === there.path ? there : { ...there, path: `${there.path} → ${own}` }
  const others = (await findDisk(known)).filter(({ path }) => path !== own)
  const named = sameName(known.facts, there.disk.facts) === true
  if (likeness === 'untold' && named && others.length > 0) throw ambiguous(known, remembered, [here, ...others])
  // Whoever made a link of their own and let it lead to the copy has chosen.
  const chosen = likeness === 'clone' && !there.path.startsWith('/dev/')
  const elsewhere = chosen ? undefined : only(known, remembered, others)
  if (elsewhere !== undefined)
    return takeElsewhere(elsewhere, `${describeDisk(here.path, there.disk)} is another disk`, options)
  if (likeness === 'other') throw otherDisk(here, remembered.disk ?? there.path, known)
  if (likeness === 'clone') {
    const text = `the disk was replaced by a copy of it: ${describeDisk(here.path, there.disk)} has the partition of ${describeDisk(there.path, known)}`
    options.report({ type: 'warning', text })
  }
  return there
}

/** Errors: DISK_AMBIGUOUS if several disks could be it. */
function only(known: KnownDisk, remembered: Remembered, found: readonly FoundDisk[]): FoundDisk | undefined {
  if (found.length > 1) throw ambiguous(known, remembered, found)
  return found[0]
}

function takeElsewhere(elsewhere: FoundDisk, why: string, { report }: ChooseDiskOptions): FoundDisk {
  const { path, disk } = elsewhere
  report({ type: 'note', text: `${why}; this machine’s disk is now ${describeDisk(path, disk)}, which is used` })
  return elsewhere
}

function ambiguous(known: KnownDisk, { disk }: Remembered, found: readonly FoundDisk[]): MeshError {
  const names = found.map((one) => describeDisk(one.path, one.disk)).join(' and ')
  const paths = found.map(({ path }) => path)
  const text = `${names} cannot be told apart; one of them is this machine’s disk, ${describeDisk(disk ?? 'unknown', known)}. Nothing was written.`
  return new MeshError('DISK_AMBIGUOUS', text, { detail: { paths } })
}

/** Names both disks. */
function otherDisk({ path, disk }: FoundDisk, before: string, known: KnownDisk): MeshError {
  const text = `${describeDisk(path, disk)} is not this machine’s disk, which is ${describeDisk(before, known)}. Nothing was written.`
  return new MeshError('DISK_OTHER', text, { detail: { path } })
}

/**
 * What the disk that is published is known by. Errors: DISK_OTHER if another disk was published from this path before: the whole lab
 * would be restored to what a wrong one holds.
 */
export async function chooseModel(
  { disk: before, diskIdentity: known }: Remembered,
  path: string,
  { acceptNewDisk = false }: { readonly acceptNewDisk?: boolean },
): Promise<KnownDisk> {
  const disk = await readDisk(path)
  if (known === undefined || acceptNewDisk || path !== before) return disk
  const likeness = compareDisks(madeAnew(known), madeAnew(disk))
  if (likeness === 'same' || likeness === 'untold') return disk
  throw otherDisk({ path, disk }, before, known)
}

/** Volumes (such as snapshots) and loop devices are made anew for each publication. */
function madeAnew(disk: KnownDisk): KnownDisk {
  if (disk.kind !== 'mapped' && disk.kind !== 'loop') return disk
  const { mapped: _mapped, file: _file, ...facts } = disk.facts
  return { ...disk, size: 0, facts }
}

/**
 * Remembers what the disk is known by, and its path if another one was given. Called when it is sure that the disk is right: after
 * a restore that was verified, or when the machine joins.
 */
export async function rememberDisk(
  state: StateDirectory,
  { disk }: Pick<FoundDisk, 'disk'>,
  options: { readonly given?: string | undefined; readonly report: (event: AgentEvent) => void },
): Promise<void> {
  const before = state.machine
  if (before === undefined) return
  const known = before.diskIdentity
  const same = known !== undefined && compareDisks(known, disk) === 'same'
  const path = options.given ?? before.disk
  const after = {
    ...before,
    diskIdentity: same ? mergeDisks(known, disk) : disk,
    ...(path === undefined ? {} : { disk: path }),
  }
  if (isDeepStrictEqual(after, before)) return
  await state.saveMachine(after)
  if (!same && disk.kind !== 'file')
    options.report({ type: 'note', text: `this machine’s disk is from now on ${describeDisk(path ?? '', disk)}` })
}
