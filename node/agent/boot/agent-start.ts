import { copyFile, mkdir, open, readdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { AGENT_SLOTS, type AgentSlot, CHOICE_PATH, SLOT_ARGUMENT, slotPath } from '../../../protocol/agent-slots.ts'
import { errnoOf } from '../../../protocol/errors.ts'
import { fsyncDirectory, writeFileAtomic } from '../../state/atomic-file.ts'
import { currentSlot, type EspPlace, withFirmware } from './firmware.ts'
import { grubEnv } from './grub-env.ts'

/** What shim starts (https://github.com/rhboot/shim), on a FAT file system, where cases of letters are one. */
const STARTED_BY_SHIM = 'grubx64.efi'

/** The disk that the agent is started from. */
export interface StartDisk {
  /** Where the EFI system partition is mounted. */
  readonly folder: string
  readonly esp: EspPlace
  /** Whether a BIOS starts from it. */
  readonly hasBiosLoader: boolean
}

/** The slot that this start came from; undefined if it came from elsewhere. Errors: BOOT_ENTRY_FAILED. */
export async function startedSlot(): Promise<AgentSlot | undefined> {
  const byUefi = await withFirmware(async (firmware) => ({ slot: currentSlot(await firmware.menu()) }))
  if (byUefi !== undefined) return byUefi.slot
  const words = (await readFile('/proc/cmdline', 'utf8')).split(/\s+/)
  return AGENT_SLOTS.find((slot) => words.includes(`${SLOT_ARGUMENT}${slot}`))
}

/** Whether {@link startOnce} can be done on this computer. */
export async function canStartOnce({ hasBiosLoader }: Pick<StartDisk, 'hasBiosLoader'>): Promise<boolean> {
  return (await withFirmware(async () => true)) ?? hasBiosLoader
}

/** The agent in a slot is started once, the next time; then the one in the slot `kept` again. Errors: BOOT_ENTRY_FAILED, those of the file system. */
export async function startOnce(slot: AgentSlot, kept: AgentSlot, { folder, esp }: StartDisk): Promise<void> {
  const byUefi = await withFirmware(async (firmware) => {
    await firmware.startOnce(slot, esp)
    return true
  })
  if (byUefi === undefined) await choose(folder, { slot: kept, try: slot })
}

/** The agent in a slot is started from now on, by whichever firmware. Errors: BOOT_ENTRY_FAILED, those of the file system. */
export async function startAlways(slot: AgentSlot, { folder, esp, hasBiosLoader }: StartDisk): Promise<void> {
  await asFallback(join(folder, slotPath(slot)), join(folder, 'EFI/BOOT'))
  if (hasBiosLoader) await choose(folder, { slot })
  await withFirmware((firmware) => firmware.startFirst(slot, esp))
}

/**
 * Copies an agent to the folder `EFI/BOOT`, where firmware looks that has no entry: one that was reset, or a disk in another computer. If shim
 * stands there, it starts what lies beside it. Errors: those of the file system.
 */
export async function asFallback(agent: string, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  const names = (await readdir(folder)).map((name) => name.toLowerCase())
  const path = join(folder, names.includes(STARTED_BY_SHIM) ? STARTED_BY_SHIM : 'BOOTX64.EFI')
  await copyFile(agent, `${path}.new`)
  await using copied = await open(`${path}.new`, 'r+')
  await copied.sync()
  await rename(`${path}.new`, path)
  await fsyncDirectory(folder)
}

/** Tells GRUB. It saves in place, and so do we: all that changes stands in one sector, and the file system has no journal. */
async function choose(folder: string, values: { readonly slot: AgentSlot; readonly try?: AgentSlot }): Promise<void> {
  const path = join(folder, CHOICE_PATH)
  const block = grubEnv(values)
  const before = await readFile(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  })
  if (before?.byteLength !== block.byteLength) return writeFileAtomic(path, block)
  await using file = await open(path, 'r+')
  await file.write(block, 0, block.byteLength, 0)
  await file.datasync()
}
