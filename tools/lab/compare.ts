import { open } from 'node:fs/promises'

const STEP = 4 * 1024 ** 2

/** Offset of the first byte in which two files differ, over the length of `expected`; undefined if they are equal. */
export async function firstDifference(
  expected: string,
  actual: string,
  signal?: AbortSignal,
): Promise<number | undefined> {
  await using stack = new AsyncDisposableStack()
  const [a, b] = [
    stack.adopt(await open(expected), (f) => f.close()),
    stack.adopt(await open(actual), (f) => f.close()),
  ]
  const [bufferA, bufferB] = [Buffer.allocUnsafe(STEP), Buffer.allocUnsafe(STEP)]
  for (let offset = 0; ; ) {
    signal?.throwIfAborted()
    const { bytesRead } = await a.read(bufferA, 0, STEP, offset)
    if (bytesRead === 0) return undefined
    const other = await b.read(bufferB, 0, bytesRead, offset)
    if (Buffer.compare(bufferA.subarray(0, bytesRead), bufferB.subarray(0, other.bytesRead)) !== 0) {
      let at = 0
      while (at < other.bytesRead && bufferA[at] === bufferB[at]) at++
      return offset + at
    }
    offset += bytesRead
  }
}
