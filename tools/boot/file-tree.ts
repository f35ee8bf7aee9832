import { readdir, readFile, readlink, realpath, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { runBuildTool } from './build-tool.ts'

type Entry = { readonly mode: number; readonly content: Buffer } | { readonly mode: number; readonly folder: true }

const [FOLDER, FILE, LINK] = [0o040000, 0o100000, 0o120000]

/** The files of a root file system in memory, which {@link FileTree.pack} makes one archive of, the same from the same files. */
export class FileTree {
  readonly #entries = new Map<string, Entry>()

  /** Paths that are in the tree, without their first slash. */
  get paths(): string[] {
    return [...this.#entries.keys()].toSorted()
  }

  /** Makes a folder, and those above it. */
  folder(path: string): void {
    const name = nameOf(path)
    if (name === '' || this.#entries.has(name)) return
    this.folder(dirname(`/${name}`))
    this.#entries.set(name, { mode: FOLDER | 0o755, folder: true })
  }

  /** Adds a file with this content. */
  write(path: string, content: Buffer | string, mode = 0o644): void {
    this.folder(dirname(`/${nameOf(path)}`))
    this.#entries.set(nameOf(path), { mode: FILE | mode, content: Buffer.from(content) })
  }

  /** Adds a symbolic link. */
  link(path: string, target: string): void {
    this.folder(dirname(`/${nameOf(path)}`))
    this.#entries.set(nameOf(path), { mode: LINK | 0o777, content: Buffer.from(target) })
  }

  /** Adds a copy of a file; who may run the original may run the copy. */
  async copy(path: string, from: string): Promise<void> {
    const runs = ((await stat(from)).mode & 0o111) !== 0
    this.write(path, await readFile(from), runs ? 0o755 : 0o644)
  }

  /** Adds copies of all files below a folder for which `wanted`, given their paths below it, is true. */
  async copyFolder(path: string, from: string, wanted: (path: string) => boolean): Promise<void> {
    for (const entry of await readdir(from, { withFileTypes: true, recursive: true })) {
      const original = join(entry.parentPath, entry.name)
      const below = original.slice(from.length + 1)
      if (!wanted(below)) continue
      if (entry.isSymbolicLink()) this.link(join(path, below), await readlink(original))
      else if (entry.isFile()) await this.copy(join(path, below), original)
    }
  }

  /**
   * Adds a program, and the libraries that ldd names, at the places where the loader looks for them. `content`: the program, if it is
   * not the file as it stands. Errors: TOOL_MISSING, BOOT_BUILD_FAILED.
   */
  async program(path: string, from: string, content?: Buffer): Promise<void> {
    this.write(path, content ?? (await readFile(await realpath(from))), 0o755)
    const listed = String(await runBuildTool('ldd', [from]).catch(() => ''))
    for (const [, library] of listed.matchAll(/(\/\S+) \(0x/g))
      if (!this.#entries.has(nameOf(library!))) this.write(library!, await readFile(await realpath(library!)), 0o755)
  }

  /**
   * The archive that the kernel unpacks: cpio in the form newc (Documentation/driver-api/early-userspace/buffer-format.rst). Owners
   * are root, times are 0, and names stand in their order, so that the same files make the same bytes.
   */
  pack(): Buffer {
    const parts: Buffer[] = []
    const add = (name: string, entry: { mode: number; content: Buffer; inode: number; links: number }): void => {
      const { mode, content, inode, links } = entry
      const fields = [inode, mode, 0, 0, links, 0, content.byteLength, 0, 0, 0, 0, Buffer.byteLength(name) + 1, 0]
      const numbers = fields.map((field) => field.toString(16).padStart(8, '0')).join('')
      parts.push(padded(Buffer.from(`070701${numbers}${name}\0`)), padded(content))
    }
    for (const [at, name] of this.paths.entries()) {
      const entry = this.#entries.get(name)!
      const content = 'folder' in entry ? Buffer.alloc(0) : entry.content
      add(name, { mode: entry.mode, content, inode: at + 1, links: 'folder' in entry ? 2 : 1 })
    }
    add('TRAILER!!!', { mode: 0, content: Buffer.alloc(0), inode: 0, links: 1 })
    return Buffer.concat(parts)
  }
}

function nameOf(path: string): string {
  return join('/', path).replace(/^\//, '').replace(/\/$/, '')
}

/** Headers and contents begin at multiples of four bytes. */
function padded(part: Buffer): Buffer {
  const over = part.byteLength % 4
  return over === 0 ? part : Buffer.concat([part, Buffer.alloc(4 - over)])
}
