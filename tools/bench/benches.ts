import { link, open, readFile } from 'node:fs/promises'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import type { Lab, MeshProcess } from '../lab/local-lab.ts'
import { Random } from '../lab/random.ts'

/** One line of a benchmark. `ratio` compares with a limit that was measured in the same run. */
export interface Figure {
  readonly what: string
  readonly seconds: number
  readonly mibPerSecond?: number
  readonly cpuSeconds?: number
  readonly peakMib?: number
  readonly ratio?: number
  /** Requests per second. */
  readonly perSecond?: number
  /** Flushes of the write log per thousand writes. */
  readonly flushesPerThousand?: number
  /** Milliseconds of processor time for a MiB of content. */
  readonly cpuMsPerMib?: number
  /** Bytes as they travel ÷ bytes of content. */
  readonly wireRatio?: number
  /** Least bytes of an answer that is compressed; 0: none is. */
  readonly packFrom?: number
}

const MIB = 1024 ** 2
const BLOCK = 65536
const CHUNK = 16 * MIB
const POLL_MS = 50

/**
 * Publishes and restores a sparse file, whose size must not show in the memory that is used. `peers` machines hold it,
 * the master included.
 */
export async function benchSparse(lab: Lab, size: number, peers = 1): Promise<Figure[]> {
  await makeHole(lab.path('model.img'), size)
  await makeHole(lab.path('m1.img'), size)
  const random = new Random(1)
  for (const [disk, count] of [
    ['model.img', 4000],
    ['m1.img', 300],
  ] as const) {
    const file = await open(lab.path(disk), 'r+')
    for (let i = 0; i < count; i++) await file.write(random.bytes(BLOCK), 0, BLOCK, random.below(size / BLOCK) * BLOCK)
    await file.close()
  }
  const master = await lab.start('master', ['seed', lab.path('model.img')])
  const startedAt = performance.now()
  await master.event('listening')
  const seedSeconds = (performance.now() - startedAt) / 1000
  for (let peer = 2; peer <= peers; peer++) await startHolder(lab, `m${peer}`)
  await lab.ok('m1', ['join', await lab.invite('master'), '--disk', lab.path('m1.img'), '--name', 'm1'])
  const restore = await measure(await lab.start('m1', ['restore']))
  const { peers: sources } = restore.result as unknown as RestoreResult
  // The master is asked last, so it may deliver nothing.
  if (sources.length < Math.max(1, peers - 1))
    throw new Error(`only ${sources.length} of ${peers} machines delivered something`)
  return [
    { ...figure('seed', size, seedSeconds), ...(await peakOf(master.child.pid)) },
    figure(`restore from ${peers}`, size, restore.seconds, restore),
  ]
}

/** Starts a machine that holds the image and serves it. It reads the same file as the master. */
async function startHolder(lab: Lab, name: string): Promise<void> {
  await link(lab.path('model.img'), lab.path(`${name}.img`))
  await lab.ok(name, ['join', await lab.invite('master'), '--disk', lab.path(`${name}.img`), '--name', name])
  await lab.ok(name, ['restore'])
  await lab.serve(name, ['up'])
}

/** What one command took from its start to its end, and its result. */
export interface Measured {
  readonly seconds: number
  readonly cpuSeconds?: number
  readonly peakMib?: number
  readonly result: Readonly<Record<string, unknown>>
}

/** A line for `size` bytes in `seconds`. */
export function figure(
  what: string,
  size: number,
  seconds: number,
  cost: { cpuSeconds?: number; peakMib?: number } = {},
): Figure & { readonly mibPerSecond: number } {
  const { cpuSeconds, peakMib } = cost
  return {
    what,
    seconds,
    mibPerSecond: size / MIB / seconds,
    ...(cpuSeconds === undefined ? {} : { cpuSeconds }),
    ...(peakMib === undefined ? {} : { peakMib }),
  }
}

/** Wall time, CPU time and peak resident memory of a process, from its start to its end. */
export async function measure(running: MeshProcess): Promise<Measured> {
  const startedAt = performance.now()
  let cost: { cpuSeconds?: number; peakMib?: number } = {}
  let ended = false
  const exited = running.exited.finally(() => {
    ended = true
  })
  while (!ended) {
    const now = await peakOf(running.child.pid)
    if (now.peakMib !== undefined) cost = now
    await Promise.race([exited, new Promise((resolve) => setTimeout(resolve, POLL_MS))])
  }
  const outcome = await exited
  if (outcome.code !== 0 || outcome.result === undefined)
    throw new Error(`mesh failed:\n${outcome.stdout}${outcome.stderr}`)
  return { seconds: (performance.now() - startedAt) / 1000, ...cost, result: outcome.result }
}

/**
 * Peak memory and processor time of a process. Linux keeps both in /proc: VmHWM, and user and system time in ticks of
 * 10 ms.
 */
export async function peakOf(pid: number | undefined): Promise<{ cpuSeconds?: number; peakMib?: number }> {
  const [status, stat] = await Promise.all([
    readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''),
    readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ''),
  ])
  const peakKib = /VmHWM:\s+(\d+)/.exec(status)?.[1]
  const times = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  if (peakKib === undefined || times.length < 13) return {}
  return { peakMib: Number(peakKib) / 1024, cpuSeconds: (Number(times[11]) + Number(times[12])) / 100 }
}

/**
 * Makes a file of `size` bytes that nothing compresses and that has no repeats: one random chunk, with the place of
 * each 4 KiB stamped on it.
 */
export async function makeFile(path: string, size: number): Promise<void> {
  const chunk = Buffer.from(new Random(3).bytes(CHUNK))
  const file = await open(path, 'w')
  try {
    for (let offset = 0; offset < size; offset += CHUNK) {
      for (let at = 0; at < CHUNK; at += 4096) chunk.writeDoubleLE(offset + at, at)
      await file.write(chunk, 0, Math.min(CHUNK, size - offset), offset)
    }
  } finally {
    await file.close()
  }
}

/** Makes a file of `size` bytes that takes no space. */
export async function makeHole(path: string, size: number): Promise<void> {
  const file = await open(path, 'w')
  await file.truncate(size)
  await file.close()
}
