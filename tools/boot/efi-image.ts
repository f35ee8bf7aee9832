import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { packagedFile, runBuildTool } from './build-tool.ts'

const STUB = '/usr/lib/systemd/boot/efi/linuxx64.efi.stub'
/** Where the stub’s own parts end; those that are added begin here and at multiples of a page behind it. */
const FIRST_ADDRESS = 0x3_0000
const PAGE = 0x1000

/** What a unified kernel image is made of; paths. */
export interface EfiParts {
  readonly kernel: string
  readonly initramfs: string
  /** Text, not a path. */
  readonly commandLine: string
  /** Text of os-release(5). */
  readonly release: string
}

/**
 * Makes one EFI program of kernel, initramfs and command line (https://uapi-group.org/specifications/specs/unified_kernel_image), and signs
 * it if a key is given. `work`: a folder for files on the way. The same parts make the same bytes, but for the signature, which holds
 * its time. Errors: TOOL_MISSING, BOOT_BUILD_FAILED.
 */
export async function makeEfiImage(
  target: string,
  parts: EfiParts,
  { work, signing }: { work: string; signing: { readonly key: string; readonly certificate: string } | undefined },
): Promise<void> {
  const [commandLine, release] = [join(work, 'cmdline'), join(work, 'osrel')]
  await writeFile(commandLine, `${parts.commandLine}\0`)
  await writeFile(release, parts.release)
  // The kernel is last, because it may need the room behind it while it unpacks itself.
  const sections = { osrel: release, cmdline: commandLine, initrd: parts.initramfs, linux: parts.kernel }
  const args: string[] = []
  let address = FIRST_ADDRESS
  for (const [name, path] of Object.entries(sections)) {
    args.push('--add-section', `.${name}=${path}`, '--change-section-vma', `.${name}=0x${address.toString(16)}`)
    address += Math.ceil((await stat(path)).size / PAGE) * PAGE
  }
  await runBuildTool('objcopy', [...args, await packagedFile(STUB, 'systemd-boot-efi'), target])
  await dropTime(target)
  if (signing === undefined) return
  await runBuildTool('sbsign', ['--key', signing.key, '--cert', signing.certificate, '--output', target, target])
}

/** Clears the time and the checksum, which firmware does not look at (https://learn.microsoft.com/windows/win32/debug/pe-format). */
async function dropTime(path: string): Promise<void> {
  const image = await readFile(path)
  const header = image.readUInt32LE(0x3c)
  for (const field of [8, 0x58]) image.writeUInt32LE(0, header + field)
  await writeFile(path, image)
}
