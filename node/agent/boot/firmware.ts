import { access, readdir } from 'node:fs/promises'
import { AGENT_SLOTS, type AgentSlot, slotPath } from '../../../protocol/agent-slots.ts'
import { runBootTool } from './boot-tool.ts'

/** Where Linux has the variables of the firmware. */
const EFI_VARIABLES = '/sys/firmware/efi/efivars'

/** The EFI system partition, as the firmware is told of it. */
export interface EspPlace {
  readonly disk: string
  readonly number: number
}

/** An entry of the firmware’s boot menu. */
export interface BootEntry {
  /** Four hexadecimal digits. */
  readonly number: string
  readonly label: string
  /** Where its program is, as efibootmgr writes it; with `\`. */
  readonly path: string
}

/** What the firmware starts, in which order, and what next. */
export interface BootMenu {
  readonly entries: readonly BootEntry[]
  readonly order: readonly string[]
  readonly current: string | undefined
  readonly next: string | undefined
}

/** Path of a slot, as firmware writes it: `\EFI\mesh\agent-a.efi`. */
export function slotLoader(slot: AgentSlot): string {
  return `\\${slotPath(slot).replaceAll('/', '\\')}`
}

/**
 * Works with the variables of the firmware, which are mounted meanwhile if they are not. Undefined on a computer that was not started by UEFI.
 * Errors: BOOT_ENTRY_FAILED, and those of `work`.
 */
export async function withFirmware<T>(
  work: (firmware: Firmware) => Promise<T>,
  variables = EFI_VARIABLES,
): Promise<T | undefined> {
  const isEfi = await access(variables).then(
    () => true,
    () => false,
  )
  if (!isEfi) return undefined
  const isMounted = (await readdir(variables)).length > 0
  if (!isMounted) await runBootTool('mount', ['-t', 'efivarfs', 'efivarfs', variables], 'BOOT_ENTRY_FAILED')
  try {
    return await work(new Firmware())
  } finally {
    if (!isMounted) await runBootTool('umount', [variables], 'BOOT_ENTRY_FAILED').catch(() => undefined)
  }
}

/** The boot menu of the firmware. Errors of all methods: BOOT_ENTRY_FAILED. */
export class Firmware {
  async menu(): Promise<BootMenu> {
    return parseBootMenu(await this.#run('-v'))
  }

  /** This slot of the agent is started first from now on; the entry of the other slot stays behind it. */
  async startFirst(slot: AgentSlot, place: EspPlace): Promise<void> {
    await this.#makeSlot(slot, '-c', place)
  }

  /** This slot of the agent is started once, the next time. */
  async startOnce(slot: AgentSlot, place: EspPlace): Promise<void> {
    await this.#makeSlot(slot, '-C', place)
    await this.startNext(slotEntries(await this.menu(), slot)[0] ?? '')
  }

  /** The entry with this number is started once, the next time. */
  async startNext(number: string): Promise<void> {
    await this.#run('-q', '-n', number)
  }

  /** From now on the entries are tried in this order. */
  async order(numbers: readonly string[]): Promise<void> {
    await this.#run('-q', '-o', numbers.join(','))
  }

  /** Makes an entry for a program (its path with `\`): at the head of the order with `-c`, out of it with `-C`. */
  async make(how: '-c' | '-C', label: string, loader: string, { disk, number }: EspPlace): Promise<void> {
    await this.#run('-q', how, '-L', label, '-d', disk, '-p', String(number), '-l', loader)
  }

  async #makeSlot(slot: AgentSlot, how: '-c' | '-C', place: EspPlace): Promise<void> {
    for (const old of slotEntries(await this.menu(), slot)) await this.#run('-q', '-b', old, '-B')
    await this.make(how, labelOf(slot), slotLoader(slot), place)
  }

  #run(...args: readonly string[]): Promise<string> {
    return runBootTool('efibootmgr', args, 'BOOT_ENTRY_FAILED')
  }
}

const labelOf = (slot: AgentSlot): string => `lab-mesh agent ${slot.toUpperCase()}`

/** Numbers of the entries of a slot of the agent. */
export function slotEntries({ entries }: BootMenu, slot: AgentSlot): string[] {
  return entries.filter(({ label }) => label === labelOf(slot)).map(({ number }) => number)
}

/** The slot of the agent that this start came from; undefined if it came from elsewhere. */
export function currentSlot(menu: BootMenu): AgentSlot | undefined {
  return AGENT_SLOTS.find((slot) => slotEntries(menu, slot).includes(menu.current ?? ''))
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
