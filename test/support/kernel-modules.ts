import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Makes a folder `6.1.0-test` of modules that hold nothing but what they say of themselves, and returns its path. */
export async function fakeModules(
  work: string,
  modules: Readonly<Record<string, Readonly<Record<string, string>>>>,
): Promise<string> {
  const folder = join(work, '6.1.0-test')
  await mkdir(join(folder, 'kernel'), { recursive: true })
  for (const [name, says] of Object.entries(modules)) {
    const text = Object.entries(says).map(([key, value]) => `${key}=${value}\0`)
    await writeFile(join(folder, 'kernel', `${name}.ko`), elfWith('.modinfo', Buffer.from(text.join(''))))
  }
  return folder
}

/** An ELF file of 64 bits with one section, and one for the names of sections. */
function elfWith(name: string, content: Buffer): Buffer {
  const names = Buffer.from(`\0${name}\0`)
  const header = Buffer.alloc(64)
  const table = Buffer.alloc(2 * 64)
  header.write('\x7fELF')
  header.writeBigUInt64LE(BigInt(64 + content.byteLength + names.byteLength), 0x28)
  header.writeUInt16LE(64, 0x3a)
  header.writeUInt16LE(2, 0x3c)
  header.writeUInt16LE(1, 0x3e)
  for (const [index, nameAt, at, size] of [
    [0, 1, 64, content.byteLength],
    [1, 0, 64 + content.byteLength, names.byteLength],
  ] as const) {
    table.writeUInt32LE(nameAt, index * 64)
    table.writeBigUInt64LE(BigInt(at), index * 64 + 0x18)
    table.writeBigUInt64LE(BigInt(size), index * 64 + 0x20)
  }
  return Buffer.concat([header, content, names, table])
}
