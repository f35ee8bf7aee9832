import { createHash } from 'node:crypto'

/** The hash tree computed in the plainest way, level by level in memory: what the real one is compared with. */
export function naiveTree(data: Uint8Array, blockSize: number): { root: Buffer; levels: Buffer[][] } {
  const sha = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
  const cut = (bytes: Uint8Array): Buffer[] => {
    const parts: Buffer[] = []
    for (let at = 0; at < bytes.byteLength; at += blockSize) {
      const part = Buffer.alloc(blockSize)
      part.set(bytes.subarray(at, at + blockSize))
      parts.push(part)
    }
    return parts
  }
  let items = cut(data)
  const levels: Buffer[][] = []
  while (items.length > 1) {
    items = cut(Buffer.concat(items.map(sha)))
    levels.push(items)
  }
  return { root: sha(items[0]!), levels }
}
