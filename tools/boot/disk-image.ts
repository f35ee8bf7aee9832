import { mkdir, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { GRUB_FOLDER } from './bios-loader.ts'
import { packagedFile, runBuildTool, whichProgram } from './build-tool.ts'
import type { EfiParts } from './efi-image.ts'
import { BUILD_EPOCH_SECONDS } from './limits.ts'

/** What GRUB needs to read the image and to start Linux. */
const GRUB_MODULES = ['biosdisk', 'iso9660', 'part_gpt', 'part_msdos', 'linux', 'normal', 'configfile', 'echo']
const MIB = 1024 ** 2
/** FAT32 has at least 65525 clusters; smaller ESPs are FAT16, which firmware reads as well. */
const SLACK_BYTES = 4 * MIB

/**
 * Makes an image that starts from a CD and from a USB stick: by BIOS through GRUB, by UEFI through the unified kernel image itself, which
 * stands in an EFI system partition. Errors: TOOL_MISSING, BOOT_BUILD_FAILED.
 */
export async function makeDiskImage(target: string, parts: EfiParts & { efi: string }, work: string): Promise<void> {
  const grub = await packagedFile(join(GRUB_FOLDER, 'boot_hybrid.img'), 'grub-pc-bin')
  const root = join(work, 'iso')
  await mkdir(join(root, 'boot/grub'), { recursive: true })
  const config = `set timeout=0\nmenuentry mesh {\n  linux /vmlinuz ${parts.commandLine}\n  initrd /agent.img\n}\n`
  await writeFile(join(root, 'boot/grub/grub.cfg'), config)
  const core = join(work, 'core.img')
  await runBuildTool('grub-mkimage', [
    '-O',
    'i386-pc-eltorito',
    '-d',
    GRUB_FOLDER,
    '-p',
    '/boot/grub',
    '-o',
    core,
    ...GRUB_MODULES,
  ])
  const esp = join(work, 'esp.img')
  await makeEsp(esp, parts.efi)
  const map = {
    '/vmlinuz': parts.kernel,
    '/agent.img': parts.initramfs,
    '/boot/grub/core.img': core,
    '/boot/esp.img': esp,
    '/boot/grub': join(root, 'boot/grub'),
  }
  await whichProgram('xorriso')
  const date = new Date(BUILD_EPOCH_SECONDS * 1000).toISOString().replaceAll(/[-:T]/g, '').slice(0, 14)
  await runBuildTool('xorriso', [
    ...['-report_about', 'SORRY', '-as', 'mkisofs', '-o', target, '-V', 'MESH', '-R', `--modification-date=${date}00`],
    ...['--set_all_file_dates', `${date}00`, '-graft-points', '-no-emul-boot', '-b', 'boot/grub/core.img'],
    ...['-boot-load-size', '4', '-boot-info-table', '--grub2-boot-info', '--grub2-mbr', grub],
    ...['-eltorito-alt-boot', '-e', 'boot/esp.img', '-no-emul-boot'],
    ...['-efi-boot-part', '--efi-boot-image', '--gpt_disk_guid', 'modification-date'],
    ...Object.entries(map).map(([path, from]) => `${path}=${from}`),
  ])
}

/** A FAT file system with one program, where firmware looks for it. */
async function makeEsp(path: string, efi: string): Promise<void> {
  const { size } = await stat(efi)
  await writeFile(path, '')
  await truncate(path, Math.ceil((size + SLACK_BYTES) / MIB) * MIB)
  await utimes(efi, BUILD_EPOCH_SECONDS, BUILD_EPOCH_SECONDS)
  await runBuildTool('mkfs.fat', ['--invariant', '-n', 'MESH', path])
  await runBuildTool('mmd', ['-i', path, '::/EFI', '::/EFI/BOOT'])
  await runBuildTool('mcopy', ['-m', '-i', path, efi, '::/EFI/BOOT/BOOTX64.EFI'])
}
