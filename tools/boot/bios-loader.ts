import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CHOICE_PATH, factsPath, SLOT_ARGUMENT, slotPath } from '../../protocol/agent-slots.ts'
import { BIOS_CODE_BYTES, BIOS_PARTITION_OFFSET, BIOS_SECTOR_BYTES } from '../../protocol/disk-layout.ts'
import { packagedFile, runBuildTool } from './build-tool.ts'
import { FileTree } from './file-tree.ts'
import { MAX_BIOS_CORE_BYTES } from './limits.ts'

/** Where Debian has GRUB for BIOS. */
export const GRUB_FOLDER = '/usr/lib/grub/i386-pc'
const MODULES = [
  ...['biosdisk', 'part_gpt', 'fat', 'loopback', 'linux', 'normal', 'loadenv', 'regexp', 'memdisk', 'newc'],
  ...['test', 'true', 'sleep', 'echo', 'boot'],
]
/** In `boot.img`: the sector that it loads, and a jump that is taken unless a BIOS names a wrong disk (grub-core/boot/i386/pc/boot.S). */
const [SECTOR_AT, DRIVE_CHECK_AT] = [0x5c, 0x66]
/** In the first sector of `core.img`: the sector from which it loads the rest (diskboot.S). */
const REST_AT = 0x1f4

/**
 * What GRUB does. The file of the choice names the slot that is kept, and one that is tried once: that name is removed from it before it is tried. If it cannot
 * be, or a slot cannot be loaded, the other one starts. An agent is an EFI program: kernel and initramfs are read out of the middle of it, from where
 * the file beside it says. There is no menu and no prompt, at which anything could be started.
 */
const SCRIPT = `regexp --set 1:disk '\\(([^,)]*)' "$cmdpath"
set esp="($disk,gpt1)"
function start {
  if loopback agent "$esp/${slotPath('$1')}"; then
    if load_env --file "$esp/${factsPath('$1')}" kernel initrd arguments; then
      if linux (agent)$kernel $arguments ${SLOT_ARGUMENT}$1; then
        if initrd (agent)$initrd; then boot; fi
      fi
    fi
    loopback -d agent
  fi
  echo "mesh: the agent in slot $1 does not start."
}
load_env --file "$esp/${CHOICE_PATH}" slot try
if [ -n "$try" ]; then
  set trying=$try
  unset try
  if save_env --file "$esp/${CHOICE_PATH}" try; then start $trying; fi
fi
if [ -n "$slot" ]; then start $slot; fi
start a
start b
echo "No agent on this disk can be started."
echo "Start this computer by network."
echo
while true; do sleep 3600; done
`

/** What the agent writes to a disk for BIOS. */
interface BiosLoader {
  /** Program of the first sector: {@link BIOS_CODE_BYTES}. */
  readonly code: Buffer
  /** What that program loads: the beginning of the partition for it. */
  readonly core: Buffer
}

/** Makes the loader that a BIOS starts from a disk, by GRUB (GNU GRUB Manual 2.06). `work`: a folder for files on the way. Errors: TOOL_MISSING, BOOT_BUILD_FAILED. */
export async function makeBiosLoader(work: string): Promise<BiosLoader> {
  const first = await packagedFile(join(GRUB_FOLDER, 'boot.img'), 'grub-pc-bin')
  const files = new FileTree()
  files.write('/boot/grub/grub.cfg', SCRIPT)
  const [memory, target] = [join(work, 'grub.cpio'), join(work, 'bios.img')]
  await writeFile(memory, files.pack())
  await runBuildTool('grub-mkimage', ['-O', 'i386-pc', '-d', GRUB_FOLDER, '-m', memory, '-o', target, ...MODULES])
  return placed(await readFile(first), await readFile(target))
}

/** Tells both parts where the second one will be, as grub-bios-setup does. */
function placed(first: Buffer, core: Buffer): BiosLoader {
  if (core.byteLength > MAX_BIOS_CORE_BYTES) throw new Error(`GRUB has ${core.byteLength} bytes`)
  const sector = BigInt(BIOS_PARTITION_OFFSET / BIOS_SECTOR_BYTES)
  first.writeBigUInt64LE(sector, SECTOR_AT)
  // Two instructions that do nothing.
  first.writeUInt16LE(0x9090, DRIVE_CHECK_AT)
  core.writeBigUInt64LE(sector + 1n, REST_AT)
  return { code: first.subarray(0, BIOS_CODE_BYTES), core }
}
