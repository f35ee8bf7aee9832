import { open, writeFile } from 'node:fs/promises'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import type { Random } from '../lab/random.ts'
import { runTool } from '../lab/run-tool.ts'

/**
 * How a session's writes lie on the disk: single granules of 4 KiB anywhere (`uniform`), or runs of 1 MiB
 * (`clustered`).
 */
export const DIRT_KINDS = ['uniform', 'clustered'] as const
/** One of these kinds. */
export type DirtKind = (typeof DIRT_KINDS)[number]

const RUN_GRANULES = 256
/** Places that are tried for a run before a shorter one is tried. */
const TRIES = 100

/** One write, in bytes; `fill` is what every byte of it becomes. */
export interface Write {
  readonly offset: number
  readonly length: number
  readonly fill: number
}

/**
 * Plans writes that do not overlap. They begin at any granule, and together cover `share` of the disk (at most a half).
 */
export function planDirt(kind: DirtKind, granules: number, share: number, random: Random): Write[] {
  const wanted = Math.max(1, Math.round(granules * share))
  const longest = kind === 'uniform' ? 1 : RUN_GRANULES
  const taken = new Uint8Array(granules)
  const writes: Write[] = []
  for (let left = wanted; left > 0; ) {
    const [start, end] = findPlace(Math.min(longest, left), taken, random)
    taken.fill(1, start, end)
    left -= end - start
    writes.push({
      offset: start * GRANULE_SIZE_BYTES,
      length: (end - start) * GRANULE_SIZE_BYTES,
      fill: 1 + random.below(255),
    })
  }
  return writes
}

/** Finds a free run of granules. If one of this length is hard to find, a shorter one is taken. */
function findPlace(granules: number, taken: Uint8Array, random: Random): [start: number, end: number] {
  let length = granules
  for (let tries = 1; ; tries++) {
    const start = random.below(taken.length - length + 1)
    if (!taken.subarray(start, start + length).includes(1)) return [start, start + length]
    if (tries % TRIES === 0) length = Math.ceil(length / 2)
  }
}

/** Writes to the file, as the system of a machine that keeps no log does. */
export async function writeToFile(disk: string, writes: readonly Write[]): Promise<void> {
  const file = await open(disk, 'r+')
  try {
    for (const { offset, length, fill } of writes) await file.write(Buffer.alloc(length, fill), 0, length, offset)
  } finally {
    await file.close()
  }
}

/** Writes through the socket of a monitor. `script`: path of a file that is made for it. */
export async function writeThroughNbd(
  socket: string,
  writes: readonly Write[],
  script: string,
  signal: AbortSignal,
): Promise<void> {
  const commands = writes.map(({ offset, length, fill }) => `aio_write -q -P ${fill} ${offset} ${length}`)
  await writeFile(script, `${[...commands, 'aio_flush', 'flush', 'quit'].join('\n')}\n`)
  const uri = `nbd+unix:///?socket=${socket}`
  await runTool('sh', ['-c', 'exec qemu-io -f raw "$1" < "$2"', 'sh', uri, script], signal)
}
