import { open } from 'node:fs/promises'
import { RangeSet, type Run } from '../../protocol/ranges.ts'

const STEP = 1024 ** 2

/** Units in which two disks differ, over the length of the first: what a scan of the second would find. */
export async function differing(image: string, disk: string, unit: number): Promise<RangeSet> {
  await using stack = new AsyncDisposableStack()
  const [a, b] = [
    stack.adopt(await open(image), (file) => file.close()),
    stack.adopt(await open(disk), (file) => file.close()),
  ]
  const [left, right] = [Buffer.alloc(STEP), Buffer.alloc(STEP)]
  const runs: Run[] = []
  for (let offset = 0; ; offset += STEP) {
    const { bytesRead } = await a.read(left, 0, STEP, offset)
    if (bytesRead === 0) return RangeSet.from(runs)
    await b.read(right, 0, bytesRead, offset)
    for (let at = 0; at < bytesRead; at += unit) {
      const end = Math.min(at + unit, bytesRead)
      const index = (offset + at) / unit
      if (left.compare(right, at, end, at, end) !== 0) runs.push([index, index + 1])
    }
  }
}
