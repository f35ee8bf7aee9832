import { access } from 'node:fs/promises'
import { runBootTool } from './boot-tool.ts'

const EFI_VARIABLES = '/sys/firmware/efi/efivars'

/** The two places of the agent on the EFI system partition. */
type AgentSlot = 'a' | 'b'

/** Path of a slot, below the root of the EFI system partition. */
export function slotPath(slot: AgentSlot): string {
  return `EFI/mesh/agent-${slot}.efi`
}

const labelOf = (slot: AgentSlot): string => `lab-mesh agent ${slot.toUpperCase()}`

/**
 * Lets the firmware start this slot first from now on; an entry for the other slot stays behind it. Returns false on a computer that was
 * not started by UEFI. Errors: BOOT_ENTRY_FAILED.
 */
export async function makeBootEntry(slot: AgentSlot, disk: string, partition: number): Promise<boolean> {
  const isEfi = await access('/sys/firmware/efi').then(
    () => true,
    () => false,
  )
  if (!isEfi) return false
  await runBootTool('mount', ['-t', 'efivarfs', 'efivarfs', EFI_VARIABLES], 'BOOT_ENTRY_FAILED')
  try {
    const listed = await runBootTool('efibootmgr', [], 'BOOT_ENTRY_FAILED')
    for (const number of entriesOf(listed, labelOf(slot)))
      await runBootTool('efibootmgr', ['-q', '-b', number, '-B'], 'BOOT_ENTRY_FAILED')
    const loader = `\\${slotPath(slot).replaceAll('/', '\\')}`
    const place = ['-d', disk, '-p', String(partition), '-l', loader]
    await runBootTool('efibootmgr', ['-q', '-c', '-L', labelOf(slot), ...place], 'BOOT_ENTRY_FAILED')
    return true
  } finally {
    await runBootTool('umount', [EFI_VARIABLES], 'BOOT_ENTRY_FAILED').catch(() => undefined)
  }
}

/** Numbers of the entries with this label, in what efibootmgr lists: `Boot0007* lab-mesh agent A\tHD(1,…)`. */
export function entriesOf(listed: string, label: string): string[] {
  return listed.split('\n').flatMap((line) => {
    const [, number, name] = /^Boot([0-9A-F]{4})[* ] (.*?)(\t|$)/.exec(line) ?? []
    return number !== undefined && name === label ? [number] : []
  })
}
