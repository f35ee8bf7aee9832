import { copyFile, mkdir, open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { runTool } from '../lab/run-tool.ts'

/** Folders that files for the image are taken from, in this order. Any Linux machine has them. */
const SOURCES = ['/etc', '/usr/lib', '/usr/share']
const MAX_FILE_BYTES = 4 * 1024 ** 2
/** Part of the image that is files. The rest stays free space. */
const FILL = 0.45
/** Bytes of image for each file: fewer files than mke2fs makes inodes. */
const BYTES_PER_FILE = 32 * 1024

interface MadeImage {
  readonly files: number
  readonly bytes: number
}

/** Makes an ext4 image of `size` bytes that holds thousands of real files of this machine, without mounting anything. */
export async function makeImage(path: string, size: number, workDir: string, signal?: AbortSignal): Promise<MadeImage> {
  const tree = join(workDir, 'files')
  await mkdir(tree)
  const budget = { bytes: size * FILL, files: Math.floor(size / BYTES_PER_FILE) }
  const made = { files: 0, bytes: 0 }
  for (const source of SOURCES)
    await copyFiles(source, join(tree, source.slice(1).replaceAll('/', '-')), budget, made, signal)
  const file = await open(path, 'w')
  await file.truncate(size)
  await file.close()
  await runTool('mke2fs', ['-q', '-t', 'ext4', '-F', '-d', tree, path], signal)
  return made
}

/** Copies regular files from a folder, in the order of their names, until the budget is used. */
async function copyFiles(
  from: string,
  to: string,
  budget: { bytes: number; files: number },
  made: { files: number; bytes: number },
  signal?: AbortSignal,
): Promise<void> {
  const entries = await readdir(from, { withFileTypes: true }).catch(() => [])
  entries.sort((a, b) => (a.name < b.name ? -1 : 1))
  let isMade = false
  for (const entry of entries) {
    signal?.throwIfAborted()
    if (made.bytes >= budget.bytes || made.files >= budget.files) return
    if (entry.isDirectory()) await copyFiles(join(from, entry.name), join(to, entry.name), budget, made, signal)
    else if (entry.isFile()) {
      const path = join(from, entry.name)
      const { size } = await stat(path)
      if (size > MAX_FILE_BYTES || made.bytes + size > budget.bytes) continue
      // Folders take inodes like files, so none is made that stays empty.
      if (!isMade) {
        await mkdir(to, { recursive: true })
        budget.files--
        isMade = true
      }
      // A file this user may not read is left out.
      const copied = await copyFile(path, join(to, entry.name)).then(
        () => true,
        () => false,
      )
      if (copied) {
        made.files++
        made.bytes += size
      }
    }
  }
}

/** Whether a disk holds an ext2/3/4 file system: the superblock's magic number at byte 1080. */
export async function isExt(path: string): Promise<boolean> {
  const file = await open(path, 'r')
  try {
    const magic = Buffer.alloc(2)
    await file.read(magic, 0, 2, 1080)
    return magic.readUInt16LE() === 0xef53
  } finally {
    await file.close()
  }
}
