import { rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import type { Lab } from '../lab/local-lab.ts'
import { type Figure, figure, type Measured, makeFile, measure } from './benches.ts'
import { type HashLimit, hashLimit } from './hash-limit.ts'

const MIB = 1024 ** 2
/** The limit is measured before the first run, and after each one. */
const RUNS = 5

/** `mesh seed --once` of a file in the page cache, each time for a new site, against SHA-256 alone. */
export async function benchSeed(lab: Lab, size: number): Promise<Figure[]> {
  await makeFile(lab.path('model.img'), size)
  return against(size, 'mesh seed', async () => {
    await rm(lab.path('master'), { recursive: true, force: true })
    return measure(await lab.start('master', ['seed', lab.path('model.img'), '--once']))
  })
}

/** `mesh restore` without a write log, and `mesh verify`, of a clean disk in the page cache, against SHA-256 alone. */
export async function benchScan(lab: Lab, size: number): Promise<Figure[]> {
  await makeFile(lab.path('model.img'), size)
  // The disk of the master is clean, and nothing has to be fetched.
  await lab.ok('master', ['seed', lab.path('model.img'), '--once'])
  const figures: Figure[] = []
  for (const command of ['restore', 'verify']) {
    const run = async (): Promise<Measured> => measure(await lab.start('master', [command]))
    figures.push(...(await against(size, `mesh ${command}`, run)))
  }
  return figures
}

interface Run extends Measured {
  /** The faster of the limits measured just before and just after. */
  readonly limit: number
  readonly ratio: number
}

/** Runs a command several times between measurements of the limit, and returns the run with the median ratio. */
async function against(size: number, what: string, command: () => Promise<Measured>): Promise<Figure[]> {
  const limits: HashLimit[] = [await hashLimit(size)]
  const runs: Run[] = []
  for (let i = 0; i < RUNS; i++) {
    const run = await command()
    limits.push(await hashLimit(size))
    const limit = Math.max(limits[i]!.mibPerSecond, limits[i + 1]!.mibPerSecond)
    runs.push({ ...run, limit, ratio: size / MIB / run.seconds / limit })
  }
  const median = runs.toSorted((a, b) => a.ratio - b.ratio)[Math.floor(RUNS / 2)]!
  const [cpuSeconds] = limits.map((limit) => limit.cpuSeconds).toSorted((a, b) => a - b)
  const inside = Number(median.result.seconds)
  return [
    {
      ...figure(`SHA-256 of 64 KiB blocks on ${availableParallelism()} cores`, size, size / MIB / median.limit),
      cpuSeconds: cpuSeconds!,
    },
    { ...figure(`${what}, from the opened state on`, size, inside), ratio: size / MIB / inside / median.limit },
    { ...figure(`${what}, the whole command`, size, median.seconds, median), ratio: median.ratio },
  ]
}
