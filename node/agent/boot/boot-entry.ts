import { access } from 'node:fs/promises'
import { runBootTool } from './boot-tool.ts'

const EFI = '/sys/firmware/efi'
const EFI_VARIABLES = `${EFI}/efivars`

/** The two places of the agent on the EFI system partition. */
export type AgentSlot = 'a' | 'b'

/** The EFI system partition, as the firmware is told of it. */
export interface EspPlace {
  readonly disk: string
  readonly number: number
}

/** What the firmware knows of the agent's entries, in what efibootmgr lists. */
interface BootEntries {
  /** The slot that this start came from; undefined if it came from elsewhere. */
  readonly current: AgentSlot | undefined
  /** Numbers of the entries of a slot. */
  of(slot: AgentSlot): readonly string[]
}

/** Path of a slot, below the root of the EFI system partition. */
export function slotPath(slot: AgentSlot): string {
  return `EFI/mesh/agent-${slot}.efi`
}

/**
 * Works with the variables of the firmware. Undefined on a computer that was not started by UEFI. Errors: BOOT_ENTRY_FAILED, and those of
 * `work`.
 */
export async function withFirmware<T>(work: (firmware: Firmware) => Promise<T>): Promise<T | undefined> {
  const isEfi = await access(EFI).then(
    () => true,
    () => false,
  )
  if (!isEfi) return undefined
  await runBootTool('mount', ['-t', 'efivarfs', 'efivarfs', EFI_VARIABLES], 'BOOT_ENTRY_FAILED')
  try {
    return await work(new Firmware())
  } finally {
    await runBootTool('umount', [EFI_VARIABLES], 'BOOT_ENTRY_FAILED').catch(() => undefined)
  }
}

/** The entries by which the firmware starts the agent. Errors: BOOT_ENTRY_FAILED. */
class Firmware {
  /** The slot that this start came from. */
  async current(): Promise<AgentSlot | undefined> {
    return readEntries(await this.#run([])).current
  }

  /** The firmware starts this slot first from now on; the entry of the other slot stays behind it. */
  async startFirst(slot: AgentSlot, place: EspPlace): Promise<void> {
    await this.#make(slot, '-c', place)
  }

  /** The firmware starts this slot once, the next time. */
  async startOnce(slot: AgentSlot, place: EspPlace): Promise<void> {
    await this.#make(slot, '-C', place)
    const [number] = readEntries(await this.#run([])).of(slot)
    await this.#run(['-q', '-n', number ?? ''])
  }

  async #make(slot: AgentSlot, how: '-c' | '-C', { disk, number }: EspPlace): Promise<void> {
    for (const old of readEntries(await this.#run([])).of(slot)) await this.#run(['-q', '-b', old, '-B'])
    const loader = `\\${slotPath(slot).replaceAll('/', '\\')}`
    await this.#run(['-q', how, '-L', labelOf(slot), '-d', disk, '-p', String(number), '-l', loader])
  }

  #run(args: readonly string[]): Promise<string> {
    return runBootTool('efibootmgr', args, 'BOOT_ENTRY_FAILED')
  }
}

const labelOf = (slot: AgentSlot): string => `lab-mesh agent ${slot.toUpperCase()}`

/** What efibootmgr lists: `BootCurrent: 0003`, `Boot0003* lab-mesh agent A\tHD(1,…)`. */
export function readEntries(listed: string): BootEntries {
  const entries = listed.split('\n').flatMap((line) => {
    const [, number, label] = /^Boot([0-9A-F]{4})[* ] (.*?)(\t|$)/.exec(line) ?? []
    return number === undefined ? [] : [{ number, label }]
  })
  const of = (slot: AgentSlot): string[] =>
    entries.filter(({ label }) => label === labelOf(slot)).map(({ number }) => number)
  const current = /^BootCurrent: ([0-9A-F]{4})$/m.exec(listed)?.[1] ?? ''
  return { current: (['a', 'b'] as const).find((slot) => of(slot).includes(current)), of }
}
