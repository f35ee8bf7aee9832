import { access, mkdir, readdir, readFile, realpath } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { MeshError } from '../../../protocol/errors.ts'
import { runBootTool } from './boot-tool.ts'

/** An entry of the firmware’s boot menu. */
export interface BootEntry {
  /** Four hexadecimal digits. */
  readonly number: string
  readonly label: string
  /** Where its program is, as efibootmgr writes it; with `\`. */
  readonly path: string
}

/** What the firmware starts, in which order, and what next. */
interface BootMenu {
  readonly entries: readonly BootEntry[]
  readonly order: readonly string[]
  readonly current: string | undefined
  readonly next: string | undefined
}

/** Partition with the EFI program of a system. */
interface LoaderPlace {
  readonly disk: string
  readonly partition: number
}

/** Where partitions are found and looked into. */
interface LookPlaces {
  /** Folder of the kernel that names all partitions, and the folder of their devices. */
  readonly partitions: string
  readonly devices: string
  /** Where a partition is mounted for a moment. */
  readonly mount: string
}

interface BootNextOptions {
  /** Path of the EFI program, such as `\EFI\Microsoft\Boot\bootmgfw.efi`, or label of the entry, such as `Windows Boot Manager`. */
  readonly entry: string
  /** Where the variables of the firmware are. @default EFI_VARIABLES */
  readonly variables?: string
  /** Where to look for the program, if there is no entry for it. @default LOOK_PLACES */
  readonly places?: LookPlaces
}

const EFI_VARIABLES = '/sys/firmware/efi/efivars'
const LOOK_PLACES: LookPlaces = { partitions: '/sys/class/block', devices: '/dev', mount: '/run/lab-mesh/loader' }
/** Labels of the agent’s own entries, of this version and of those that were made by hand. */
const AGENT_LABEL = /^(lab-)?mesh agent\b/i

/**
 * Lets the firmware start another system at the next start, once. An entry that is missing is made, out of the boot order, if the
 * path of its program is given. The agent’s own entry stays first in the order, or becomes that again. Errors: BOOT_NO_SYSTEM.
 */
export async function bootNext(options: BootNextOptions): Promise<BootEntry> {
  const { variables = EFI_VARIABLES, entry } = options
  if (!(await isThere(variables)))
    throw new MeshError('BOOT_NO_SYSTEM', `${entry} cannot be started next: this computer was not started by UEFI`)
  const isMounted = (await readdir(variables)).length > 0
  if (!isMounted) await runBootTool('mount', ['-t', 'efivarfs', 'efivarfs', variables])
  try {
    return await chooseNext(options)
  } finally {
    if (!isMounted) await runBootTool('umount', [variables]).catch(() => undefined)
  }
}

async function chooseNext({ entry, places = LOOK_PLACES }: BootNextOptions): Promise<BootEntry> {
  const before = await bootMenu()
  const found = entryFor(before.entries, entry) ?? (await makeEntry(entry, places))
  const order = agentFirst(before)
  if (order !== undefined) await runBootTool('efibootmgr', ['-q', '-o', order.join(',')])
  await runBootTool('efibootmgr', ['-q', '-n', found.number])
  // Firmware that takes no new variables would start the agent again and again.
  if ((await bootMenu()).next !== found.number)
    throw new MeshError('BOOT_NO_SYSTEM', `the firmware does not keep that ${found.label} is to be started next`)
  return found
}

async function bootMenu(): Promise<BootMenu> {
  return parseBootMenu(await runBootTool('efibootmgr', ['-v']))
}

/** What `efibootmgr -v` prints, of version 17 (`File(\…)`) or 18 (`\…`). */
export function parseBootMenu(text: string): BootMenu {
  const entries: BootEntry[] = []
  for (const line of text.split('\n')) {
    const [, number, label, path] = /^Boot([0-9A-Fa-f]{4})[* ] ([^\t]*)(?:\t(.*))?$/.exec(line) ?? []
    if (number !== undefined && label !== undefined) entries.push({ number, label: label.trim(), path: path ?? '' })
  }
  const said = (name: string): string | undefined => new RegExp(`^${name}: ([0-9A-Fa-f,]+)$`, 'm').exec(text)?.[1]
  return { entries, order: said('BootOrder')?.split(',') ?? [], current: said('BootCurrent'), next: said('BootNext') }
}

/** The entry with this label, or for the program at this path. */
function entryFor(entries: readonly BootEntry[], wanted: string): BootEntry | undefined {
  const text = wanted.toLowerCase().replaceAll('/', '\\')
  return isPath(wanted)
    ? entries.find(({ path }) => path.toLowerCase().includes(text))
    : entries.find(({ label }) => label.toLowerCase() === wanted.toLowerCase())
}

const isPath = (entry: string): boolean => /^[\\/]/.test(entry)

/** A boot order in which the agent is first; undefined if it is, or if the agent is not started from a disk. */
export function agentFirst({ entries, order, current }: BootMenu): string[] | undefined {
  const isAgent = (number: string): boolean =>
    entries.some((entry) => entry.number === number && AGENT_LABEL.test(entry.label))
  const own = order.filter(isAgent)
  const first = current !== undefined && own.includes(current) ? current : own[0]
  if (first === undefined || isAgent(order[0]!)) return undefined
  return [first, ...order.filter((number) => number !== first)]
}

async function makeEntry(entry: string, places: LookPlaces): Promise<BootEntry> {
  if (!isPath(entry)) throw new MeshError('BOOT_NO_SYSTEM', `the firmware has no entry that is named ${entry}`)
  const loader = entry.replaceAll('/', '\\')
  const found = await findLoader(loader, places)
  if (found === undefined) throw new MeshError('BOOT_NO_SYSTEM', `no EFI system partition has ${loader}`)
  const label = /bootmgfw\.efi$/i.test(loader)
    ? 'Windows Boot Manager'
    : `lab-mesh ${basename(loader.replaceAll('\\', '/'))}`
  const where = ['-d', found.disk, '-p', String(found.partition)]
  // -C: not in the order. What starts by itself is the agent alone.
  await runBootTool('efibootmgr', ['-q', '-C', ...where, '-L', label, '-l', loader])
  const made = entryFor((await bootMenu()).entries, loader)
  if (made === undefined) throw new MeshError('BOOT_NO_SYSTEM', `the firmware does not keep an entry for ${loader}`)
  return made
}

/** The first partition with a FAT file system that has this program. */
async function findLoader(
  loader: string,
  { partitions, devices, mount }: LookPlaces,
): Promise<LoaderPlace | undefined> {
  await mkdir(mount, { recursive: true })
  for (const name of (await readdir(partitions)).sort()) {
    const number = await readFile(join(partitions, name, 'partition'), 'utf8').catch(() => undefined)
    if (number === undefined) continue
    const mounted = await runBootTool('mount', ['-t', 'vfat', '-o', 'ro', join(devices, name), mount]).then(
      () => true,
      () => false,
    )
    if (!mounted) continue
    // FAT does not tell capitals from small letters.
    const has = await isThere(join(mount, loader.replaceAll('\\', '/')))
    await runBootTool('umount', [mount])
    const disk = basename(dirname(await realpath(join(partitions, name))))
    if (has) return { disk: join(devices, disk), partition: Number(number) }
  }
  return undefined
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
