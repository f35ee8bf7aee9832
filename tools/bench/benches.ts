import { open, readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Lab, MeshProcess } from '../lab/local-lab.ts'
import { Random } from '../lab/random.ts'

/** One line of a benchmark. Ratios are against a limit measured in the same run. */
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
}

const MIB = 1024 ** 2
const BLOCK = 65536
const CHUNK = 16 * MIB
const POLL_MS = 50

/** `mesh seed --once` of a file in the page cache, against SHA-256 alone. */
export async function benchSeed(lab: Lab, size: number): Promise<Figure[]> {
  await makeFile(lab.path('model.img'), size)
  const limit = await hashLimit(Math.min(size, 4 * 1024 * MIB))
  const seed = await measure(await lab.start('master', ['seed', lab.path('model.img'), '--once']))
  const seconds = Number(seed.result.seconds)
  const whole = figure('mesh seed, the whole command', size, seed.seconds, seed)
  return [
    {
      what: `SHA-256 of 64 KiB blocks on ${availableParallelism()} cores`,
      seconds: size / MIB / limit,
      mibPerSecond: limit,
    },
    { ...figure('mesh seed, hashing and signing', size, seconds), ratio: size / MIB / seconds / limit },
    { ...whole, ratio: whole.mibPerSecond / limit },
  ]
}

/** A sparse file: what counts is that memory does not grow with it. */
export async function benchSparse(lab: Lab, size: number): Promise<Figure[]> {
  await makeHole(lab.path('model.img'), size)
  await makeHole(lab.path('m1.img'), size)
  const random = new Random(1)
  for (const [disk, count] of [
    ['model.img', 500],
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
  await lab.ok('m1', ['join', await lab.invite('master'), '--disk', lab.path('m1.img'), '--name', 'm1'])
  const restore = await measure(await lab.start('m1', ['restore']))
  return [
    { ...figure('seed', size, seedSeconds), ...(await peakOf(master.child.pid)) },
    figure('restore', size, restore.seconds, restore),
  ]
}

export interface Measured {
  readonly seconds: number
  readonly cpuSeconds?: number
  readonly peakMib?: number
  readonly result: Readonly<Record<string, unknown>>
}

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

/** Linux keeps both in /proc: VmHWM, and user and system time in ticks of 10 ms. */
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

/** MiB/s of one-shot SHA-256 over blocks in memory, on all cores at once: nothing that hashes can be faster. */
export async function hashLimit(size: number): Promise<number> {
  const threads = availableParallelism()
  const blocks = Math.floor(size / BLOCK / threads)
  const source = `const { hash } = require('node:crypto'); const { parentPort } = require('node:worker_threads')
    const data = Buffer.alloc(${CHUNK}, 1); for (let i = 0; i < data.length; i += 4096) data[i] = i / 4096
    parentPort.on('message', () => {
      for (let i = 0; i < ${blocks}; i++) hash('sha256', data.subarray((i % 256) * ${BLOCK}, (i % 256 + 1) * ${BLOCK}), 'buffer')
      parentPort.postMessage('done')
    })
    parentPort.postMessage('ready')`
  const workers = Array.from({ length: threads }, () => new Worker(source, { eval: true }))
  const all = (): Promise<unknown> =>
    Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))))
  await all()
  const startedAt = performance.now()
  const done = all()
  for (const worker of workers) worker.postMessage('go')
  await done
  const seconds = (performance.now() - startedAt) / 1000
  await Promise.all(workers.map((worker) => worker.terminate()))
  return (blocks * threads * BLOCK) / MIB / seconds
}

/** Incompressible content without repeats: one random chunk, each block of it stamped with its place. */
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

export async function makeHole(path: string, size: number): Promise<void> {
  const file = await open(path, 'w')
  await file.truncate(size)
  await file.close()
}
