import { access, mkdir, readdir, readFile, realpath } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { MeshError } from '../../../protocol/errors.ts'
import { runBootTool } from './boot-tool.ts'
import { type BootEntry, type BootMenu, type EspPlace, type Firmware, slotLoader, withFirmware } from './firmware.ts'

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
  /** Where the variables of the firmware are, if not where Linux has them. */
  readonly variables?: string
  /** Where to look for the program, if there is no entry for it. @default LOOK_PLACES */
  readonly places?: LookPlaces
}

const LOOK_PLACES: LookPlaces = { partitions: '/sys/class/block', devices: '/dev', mount: '/run/lab-mesh/loader' }
/** Labels of the agent’s own entries, of this version and of those that were made by hand. */
const AGENT_LABEL = /^(lab-)?mesh agent\b/i

/**
 * Lets the firmware start another system at the next start, once. An entry that is missing is made, out of the boot order, if the
 * path of its program is given. The agent’s own entry stays first in the order, or becomes that again; it is made, if
 * the firmware has none for an agent that is on an EFI system partition. Errors: BOOT_NO_SYSTEM, BOOT_ENTRY_FAILED.
 */
export async function bootNext({ entry, variables, places = LOOK_PLACES }: BootNextOptions): Promise<BootEntry> {
  const next = await withFirmware((firmware) => chooseNext(firmware, entry, places), variables)
  if (next !== undefined) return next
  throw new MeshError('BOOT_NO_SYSTEM', `${entry} cannot be started next: this computer was not started by UEFI`)
}

async function chooseNext(firmware: Firmware, entry: string, places: LookPlaces): Promise<BootEntry> {
  const found = entryFor((await firmware.menu()).entries, entry) ?? (await makeEntry(firmware, entry, places))
  await putAgentFirst(firmware, places)
  await firmware.startNext(found.number)
  // Firmware that takes no new variables would start the agent again and again.
  if ((await firmware.menu()).next !== found.number)
    throw new MeshError('BOOT_NO_SYSTEM', `the firmware does not keep that ${found.label} is to be started next`)
  return found
}

/** An entry of the agent that the firmware has lost, or never had, is made, if the agent is on a disk of this computer. */
async function putAgentFirst(firmware: Firmware, places: LookPlaces): Promise<void> {
  const menu = await firmware.menu()
  const order = agentFirst(menu)
  if (order !== undefined) await firmware.order(order)
  if (menu.entries.some(isAgent)) return
  for (const slot of ['a', 'b'] as const) {
    const place = await findLoader(slotLoader(slot), places)
    if (place !== undefined) return firmware.startFirst(slot, place)
  }
}

const isAgent = ({ label }: BootEntry): boolean => AGENT_LABEL.test(label)

/** The entry with this label, or for the program at this path. */
function entryFor(entries: readonly BootEntry[], wanted: string): BootEntry | undefined {
  const text = wanted.toLowerCase().replaceAll('/', '\\')
  return isPath(wanted)
    ? entries.find(({ path }) => path.toLowerCase().includes(text))
    : entries.find(({ label }) => label.toLowerCase() === wanted.toLowerCase())
}

const isPath = (entry: string): boolean => /^[\\/]/.test(entry)

/** A boot order in which the agent is first; undefined if it is, or if the agent has no entry. */
export function agentFirst({ entries, order, current }: BootMenu): string[] | undefined {
  const all = entries.filter(isAgent).map(({ number }) => number)
  // One that firmware has left out of the order is as good.
  const own = [...order.filter((number) => all.includes(number)), ...all]
  const first = current !== undefined && own.includes(current) ? current : own[0]
  if (first === undefined || all.includes(order[0] ?? '')) return undefined
  return [first, ...order.filter((number) => number !== first)]
}

async function makeEntry(firmware: Firmware, entry: string, places: LookPlaces): Promise<BootEntry> {
  if (!isPath(entry)) throw new MeshError('BOOT_NO_SYSTEM', `the firmware has no entry that is named ${entry}`)
  const loader = entry.replaceAll('/', '\\')
  const found = await findLoader(loader, places)
  if (found === undefined) throw new MeshError('BOOT_NO_SYSTEM', `no EFI system partition has ${loader}`)
  const label = /bootmgfw\.efi$/i.test(loader)
    ? 'Windows Boot Manager'
    : `lab-mesh ${basename(loader.replaceAll('\\', '/'))}`
  // -C: not in the order. What starts by itself is the agent alone.
  await firmware.make('-C', label, loader, found)
  const made = entryFor((await firmware.menu()).entries, loader)
  if (made === undefined) throw new MeshError('BOOT_NO_SYSTEM', `the firmware does not keep an entry for ${loader}`)
  return made
}

/** The first partition with a FAT file system that has this program. */
async function findLoader(loader: string, { partitions, devices, mount }: LookPlaces): Promise<EspPlace | undefined> {
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
    if (has) return { disk: join(devices, disk), number: Number(number) }
  }
  return undefined
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
