import { open } from 'node:fs/promises'

/** Where a part of a file is, in bytes. */
interface FilePart {
  readonly offset: number
  readonly size: number
}

/** Kernel, initramfs and command line in the agent. */
interface EfiParts {
  readonly linux: FilePart
  readonly initrd: FilePart
  readonly commandLine: string
}

/** What is looked at of a file: its headers stand in its first page. */
const HEAD_BYTES = 4096
const SECTION_BYTES = 40
/** The kernel takes no more. */
const MAX_COMMAND_LINE_BYTES = 4096

/**
 * Finds the parts of a unified kernel image (https://uapi-group.org/specifications/specs/unified_kernel_image) by its table of sections
 * (https://learn.microsoft.com/windows/win32/debug/pe-format). Undefined if the file is none.
 */
export async function efiParts(path: string): Promise<EfiParts | undefined> {
  await using file = await open(path, 'r')
  const { size } = await file.stat()
  const head = Buffer.alloc(HEAD_BYTES)
  await file.read(head, 0, HEAD_BYTES, 0)
  const parts = sections(head)
  const [linux, initrd, line] = ['.linux', '.initrd', '.cmdline'].map((name) => parts.get(name))
  if (linux === undefined || initrd === undefined || line === undefined) return undefined
  if ([linux, initrd, line].some((part) => part.offset + part.size > size)) return undefined
  if (line.size > MAX_COMMAND_LINE_BYTES) return undefined
  const text = Buffer.alloc(line.size)
  await file.read(text, 0, line.size, line.offset)
  return { linux, initrd, commandLine: text.toString('utf8').replace(/[\0\n]+$/, '') }
}

function sections(head: Buffer): ReadonlyMap<string, FilePart> {
  const found = new Map<string, FilePart>()
  const at = head.toString('latin1', 0, 2) === 'MZ' ? head.readUInt32LE(0x3c) : HEAD_BYTES
  if (at + 24 > HEAD_BYTES || head.toString('latin1', at, at + 4) !== 'PE\0\0') return found
  const first = at + 24 + head.readUInt16LE(at + 20)
  const count = head.readUInt16LE(at + 6)
  for (let n = 0; n < count && first + (n + 1) * SECTION_BYTES <= HEAD_BYTES; n++) {
    const entry = head.subarray(first + n * SECTION_BYTES)
    const name = entry.toString('latin1', 0, 8).replace(/\0+$/, '')
    found.set(name, { size: entry.readUInt32LE(8), offset: entry.readUInt32LE(20) })
  }
  return found
}
