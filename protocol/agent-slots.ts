/** The two places of the agent on the EFI system partition. */
export type AgentSlot = 'a' | 'b'

/** Both slots. */
export const AGENT_SLOTS: readonly AgentSlot[] = ['a', 'b']

/** Path of a slot, below the root of the EFI system partition. */
export function slotPath(slot: string): string {
  return `EFI/mesh/agent-${slot}.efi`
}

/** Path of the file that tells GRUB what it needs to know of the agent in a slot: `kernel`, `initrd`, `arguments`. */
export function factsPath(slot: string): string {
  return `EFI/mesh/agent-${slot}.env`
}

/** Path of the file that tells GRUB which slot it starts (`slot`), and which other one once (`try`). */
export const CHOICE_PATH = 'EFI/mesh/choice.env'

/** What GRUB puts before the name of the slot on the kernel’s command line. */
export const SLOT_ARGUMENT = 'mesh.slot='
