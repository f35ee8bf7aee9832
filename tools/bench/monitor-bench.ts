import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, rm } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { readJson } from '../../protocol/document.ts'
import { list, object, real, which } from '../../protocol/json-shape.ts'
import type { Lab, MeshEvent, MeshProcess } from '../lab/local-lab.ts'
import { runTool } from '../lab/run-tool.ts'
import { type Figure, makeFile, makeHole, peakOf } from './benches.ts'

const MIB = 1024 ** 2
const ROUNDS = 5
const RUN_SECONDS = 1
const DEPTH = 16
const MODEL_BYTES = MIB
/** A disk whose log is 34 MiB. */
const LARGE_DISK_BYTES = 1024 ** 4

const WORKLOADS = [
  { what: 'read 1 MiB in sequence', rw: 'read', block: MIB },
  { what: 'write 1 MiB in sequence', rw: 'write', block: MIB },
  { what: 'read 4 KiB at random', rw: 'randread', block: 4096 },
  { what: 'write 4 KiB at random, marked', rw: 'randwrite', block: 4096 },
] as const

interface Speed {
  readonly bytesPerSecond: number
  readonly perSecond: number
  readonly requests: number
}

/** `mesh monitor` against `nbdkit file`: files in the page cache, Unix sockets, the same client, turn by turn. */
export async function benchMonitor(lab: Lab, size: number): Promise<Figure[]> {
  await joinWithDisk(lab, 'm1', () => makeFile(lab.path('m1.img'), size))
  await makeFile(lab.path('rival.img'), size)
  const rival = await startNbdkit(lab.path('rival.nbd'), lab.path('rival.img'))
  try {
    const monitor = await startMonitor(lab, 'm1')
    // All granules are marked now.
    await fio(monitor.socket, size, ['--rw=write', `--bs=${MIB}`])
    const figures: Figure[] = []
    for (const { what, rw, block } of WORKLOADS) {
      const speeds: { rival: Speed; own: Speed }[] = []
      const job = [`--rw=${rw}`, `--bs=${block}`, '--norandommap', '--time_based', `--runtime=${RUN_SECONDS}`]
      for (let round = 0; round < ROUNDS; round++) {
        const one = await fio(lab.path('rival.nbd'), size, job)
        speeds.push({ rival: one, own: await fio(monitor.socket, size, job) })
      }
      const limit = median(speeds.map((pair) => pair.rival))
      const own = median(speeds.map((pair) => pair.own))
      figures.push(figure(`${what}: nbdkit`, limit), {
        ...figure(`${what}: monitor`, own),
        ratio: own.perSecond / limit.perSecond,
      })
    }
    await monitor.running.stop()
    return [...figures, await firstTouch(lab, size), ...(await openLarge(lab))]
  } finally {
    await stop(rival)
  }
}

/**
 * Writes at random to granules that are not marked yet. Each write has to wait for a flush of the log, which it shares
 * with others.
 */
async function firstTouch(lab: Lab, size: number): Promise<Figure> {
  const runs: (Speed & { flushesPerThousand: number })[] = []
  for (let round = 0; round < ROUNDS; round++) {
    await rm(lab.path('m1', 'write-log'), { recursive: true })
    const { running, socket } = await startMonitor(lab, 'm1')
    const speed = await fio(socket, size, ['--rw=randwrite', '--bs=4096', '--time_based', `--runtime=${RUN_SECONDS}`])
    const { result } = await running.stop()
    runs.push({ ...speed, flushesPerThousand: (Number(result?.flushes) / speed.requests) * 1000 })
  }
  const run = median(runs)
  return { ...figure('write 4 KiB at random, first touch: monitor', run), flushesPerThousand: run.flushesPerThousand }
}

/** Opening the log of a disk of 1 TiB, with few and with all granules marked. */
async function openLarge(lab: Lab): Promise<Figure[]> {
  await joinWithDisk(lab, 'm2', () => makeHole(lab.path('m2.img'), LARGE_DISK_BYTES))
  const open = async (what: string, marks: string): Promise<Figure> => {
    const first = await startMonitor(lab, 'm2')
    await nbdsh(first.socket, marks)
    await first.running.stop()
    const { running, monitoring } = await startMonitor(lab, 'm2')
    const { peakMib } = await peakOf(running.child.pid)
    await running.stop()
    return {
      what: `open the log of 1 TiB, ${what}`,
      seconds: Number(monitoring.openMs) / 1000,
      mibPerSecond: 0,
      ...(peakMib === undefined ? {} : { peakMib }),
    }
  }
  return [
    await open('100 granules marked', 'for i in range(100): h.trim(4096, i * 10**10 // 4096 * 4096)'),
    await open('all granules marked', 'for i in range(512): h.trim(2**31, i * 2**31)'),
  ]
}

async function joinWithDisk(lab: Lab, machine: string, makeDisk: () => Promise<void>): Promise<void> {
  await makeDisk()
  await makeFile(lab.path('model.img'), MODEL_BYTES)
  await lab.serve('master', ['seed', lab.path('model.img')])
  const token = await lab.invite('master')
  await lab.ok(machine, ['join', token, '--disk', lab.path(`${machine}.img`), '--name', machine])
  await lab.stop('master')
}

async function startMonitor(
  lab: Lab,
  machine: string,
): Promise<{ running: MeshProcess; socket: string; monitoring: MeshEvent }> {
  const socket = lab.path(`${machine}.nbd`)
  const running = await lab.start(machine, ['monitor', lab.path(`${machine}.img`), '--nbd', `unix:${socket}`])
  return { running, socket, monitoring: await running.event('monitoring') }
}

async function startNbdkit(socket: string, file: string): Promise<ChildProcess> {
  const child = spawn('nbdkit', ['--foreground', '--unix', socket, 'file', file], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  await once(child, 'spawn')
  while (child.exitCode === null) {
    const there = await access(socket).then(
      () => true,
      () => false,
    )
    if (there) return child
    await sleep(20)
  }
  throw new Error('nbdkit did not start')
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  child.kill()
  await once(child, 'exit')
}

async function nbdsh(socket: string, script: string): Promise<void> {
  // The script is written for the system's Python.
  await runTool('env', ['PATH=/usr/bin:/bin', 'nbdsh', '--uri', `nbd+unix:///?socket=${socket}`, '-c', script])
}

async function fio(socket: string, size: number, job: readonly string[]): Promise<Speed> {
  const common = ['--name=bench', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`, `--size=${size}`]
  const printed = await runTool('fio', [...common, `--iodepth=${DEPTH}`, '--output-format=json', ...job])
  const { jobs } = readJson('what fio says', isFioReport, printed.slice(printed.indexOf('{')))
  const { read, write } = jobs[0]!
  return {
    bytesPerSecond: read.bw_bytes + write.bw_bytes,
    perSecond: read.iops + write.iops,
    requests: read.total_ios + write.total_ios,
  }
}

const isFioSide = object({ bw_bytes: real, iops: real, total_ios: real })
const isFioReport = object({
  jobs: which(list(object({ read: isFioSide, write: isFioSide }), 1), (jobs) => jobs.length === 1),
})

function median<T extends Speed>(speeds: readonly T[]): T {
  return speeds.toSorted((a, b) => a.perSecond - b.perSecond)[Math.floor(speeds.length / 2)]!
}

function figure(what: string, { bytesPerSecond, perSecond }: Speed): Figure {
  return { what, seconds: RUN_SECONDS, mibPerSecond: bytesPerSecond / MIB, perSecond }
}
