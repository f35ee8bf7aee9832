import { BIOS_SECTOR_BYTES } from '../../../protocol/disk-layout.ts'
import { efiParts } from './efi-parts.ts'
import { grubEnv } from './grub-env.ts'

/**
 * What GRUB needs to know of an agent: where kernel and initramfs stand in it, in sectors, and what it tells the kernel. Undefined if the file is
 * no agent.
 */
export async function grubFacts(path: string): Promise<Buffer | undefined> {
  const parts = await efiParts(path)
  if (parts === undefined) return undefined
  const { linux, initrd, commandLine } = parts
  if (linux.offset % BIOS_SECTOR_BYTES !== 0 || initrd.offset % BIOS_SECTOR_BYTES !== 0) return undefined
  const place = ({ offset, size }: { readonly offset: number; readonly size: number }): string =>
    `${offset / BIOS_SECTOR_BYTES}+${Math.ceil(size / BIOS_SECTOR_BYTES)}`
  return grubEnv({ kernel: place(linux), initrd: place(initrd), arguments: commandLine })
}
