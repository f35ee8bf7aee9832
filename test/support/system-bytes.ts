import { closeSync, openSync, readSync } from 'node:fs'

/** Bytes of a real program, the one that runs this test, from its beginning on; they compress as a system's files do. */
export function systemBytes(length: number): Buffer {
  const file = openSync(process.execPath, 'r')
  try {
    const bytes = Buffer.alloc(length)
    if (readSync(file, bytes, 0, length, 0) !== length) throw new Error('the program is shorter than that')
    return bytes
  } finally {
    closeSync(file)
  }
}
