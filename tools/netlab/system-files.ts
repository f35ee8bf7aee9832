import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import type { Pieces } from './model-image.ts'

const FOLDERS = ['/usr/lib', '/usr/share']

interface SystemFile {
  readonly path: string
  /** Place of its first byte among the bytes of all files. */
  readonly start: number
  readonly size: number
}

/**
 * Pieces of this machine's system: its files one behind the other, in the order of their paths. The same machine gives
 * the same bytes. Errors: USAGE if the machine has fewer than `pieces` of them.
 */
export async function systemPieces(pieces: number): Promise<Pieces> {
  const files = await listFiles(pieces * GRANULE_SIZE_BYTES)
  return async (first, count) => {
    const content = Buffer.alloc(count * GRANULE_SIZE_BYTES)
    const begin = first * GRANULE_SIZE_BYTES
    for (let i = fileAt(files, begin); i < files.length; i++) {
      const { path, start, size } = files[i]!
      if (start >= begin + content.byteLength) break
      const from = Math.max(start, begin)
      const length = Math.min(start + size, begin + content.byteLength) - from
      const file = await open(path)
      try {
        await file.read(content, from - begin, length, from - start)
      } finally {
        await file.close()
      }
    }
    return content
  }
}

/** Lists files until they have `bytes` bytes together. */
async function listFiles(bytes: number): Promise<SystemFile[]> {
  const files: SystemFile[] = []
  let start = 0
  const walk = async (folder: string): Promise<void> => {
    const entries = await readdir(folder, { withFileTypes: true })
    for (const entry of entries.toSorted((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)))) {
      if (start >= bytes) return
      const path = join(folder, entry.name)
      if (entry.isDirectory()) await walk(path)
      if (!entry.isFile()) continue
      const { size } = await stat(path)
      if (size === 0) continue
      files.push({ path, start, size })
      start += size
    }
  }
  for (const folder of FOLDERS) await walk(folder)
  if (start < bytes) {
    const places = FOLDERS.join(' and ')
    throw new MeshError(
      'USAGE',
      `${places} hold ${start} bytes, and such an image takes ${bytes}: give a smaller --size`,
    )
  }
  return files
}

/** Index of the file that holds a position. */
function fileAt(files: readonly SystemFile[], position: number): number {
  let [low, high] = [0, files.length - 1]
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if (files[middle]!.start <= position) low = middle
    else high = middle - 1
  }
  return low
}
