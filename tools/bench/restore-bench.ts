import { spawnSync } from 'node:child_process'
import { rm } from 'node:fs/promises'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import type { Lab } from '../lab/local-lab.ts'
import { runTool } from '../lab/run-tool.ts'
import { type Figure, figure, makeFile, makeHole, measure, peakOf } from './benches.ts'
import { hashLimit } from './hash-limit.ts'

const MIB = 1024 ** 2
const BLOCK = 65536
const GRANULE = 4096
const RUNS = 11
/** Part of the disk that a session dirties. */
const SHARE = 0.02

/** Provisioning over loopback; a restore by scan of the clean disk that results; and restores from a write log. */
export async function benchRestore(lab: Lab, size: number): Promise<Figure[]> {
  await makeFile(lab.path('model.img'), size)
  await makeHole(lab.path('m1.img'), size)
  const { mibPerSecond: limit } = await hashLimit(Math.min(size, 4 * 1024 * MIB))
  const master = await lab.serve('master', ['seed', lab.path('model.img')])
  await lab.ok('m1', ['join', await lab.invite('master'), '--disk', lab.path('m1.img'), '--name', 'm1'])
  const provision = await measure(await lab.start('m1', ['restore']))
  const clean = await measure(await lab.start('m1', ['restore']))
  const verify = await measure(await lab.start('m1', ['verify']))
  const serving = await peakOf(master.child.pid)
  const scan = figure('restore by scan, nothing dirty', size, clean.seconds, clean)
  const whole = figure('verify', size, verify.seconds, verify)
  return [
    figure('provision from one master over loopback', size, provision.seconds, provision),
    {
      what: 'the master meanwhile',
      seconds: provision.seconds,
      mibPerSecond: size / MIB / provision.seconds,
      ...serving,
    },
    { ...scan, ratio: scan.mibPerSecond / limit },
    { ...whole, ratio: whole.mibPerSecond / limit },
    ...(await fromLog(lab, size)),
  ]
}

/** Measures restores from a write log. The log begins with a restore that scans. */
async function fromLog(lab: Lab, size: number): Promise<Figure[]> {
  await session(lab, size)
  await lab.ok('m1', ['restore'])
  const figures = await cleanLog(lab)
  for (const [what, block] of [
    ['random 4 KiB', GRANULE],
    ['runs of 1 MiB', MIB],
  ] as const) {
    await session(lab, size, block)
    const { dirty } = await lab.ok('m1', ['log', 'show'])
    const run = await measure(await lab.start('m1', ['restore']))
    const receipt = run.result as unknown as RestoreResult
    const { bytes, blocks, log } = receipt
    if (log.state !== 'dirty' || log.missed !== undefined) throw new Error(`the log was ${JSON.stringify(log)}`)
    const dirtied = Number(dirty) * GRANULE
    const name = `2 % dirtied in ${what}`
    const { seconds } = run
    figures.push(
      figure(`${name}: restore`, dirtied, seconds, run),
      { what: `${name}: bytes received, of those dirtied`, seconds, ratio: bytes.received / dirtied },
      {
        what: `${name}: disk reads, of dirty blocks and audit`,
        seconds,
        ratio: bytes.read / ((blocks.dirty + blocks.audited) * BLOCK),
      },
    )
  }
  return figures
}

/**
 * Measures how long a boot waits for a machine that nobody changed, and how much of that is the start of Node itself.
 */
async function cleanLog(lab: Lab): Promise<Figure[]> {
  const node: number[] = []
  const restores: number[] = []
  for (let run = 0; run < RUNS; run++) {
    const from = performance.now()
    spawnSync(process.execPath, ['-e', '0'])
    node.push((performance.now() - from) / 1000)
    const begun = performance.now()
    const { result } = await lab.run('m1', ['restore'])
    restores.push((performance.now() - begun) / 1000)
    const { log, blocks } = result as unknown as RestoreResult
    if (log.state !== 'clean' || blocks.dirty !== 0) throw new Error(`the log was ${JSON.stringify(log)}`)
  }
  return [
    { what: 'Node alone (node -e 0)', seconds: median(node) },
    { what: 'restore, the log is clean', seconds: median(restores) },
  ]
}

/** Starts the monitor, writes a share of the disk through it in blocks of `block` bytes, and stops it. */
async function session(lab: Lab, size: number, block?: number): Promise<void> {
  const socket = lab.path('m1.nbd')
  const monitor = await lab.start('m1', ['monitor', lab.path('m1.img'), '--nbd', `unix:${socket}`])
  await monitor.event('monitoring')
  if (block !== undefined) {
    const amount = Math.round((size * SHARE) / block) * block
    const job = ['--name=session', '--rw=randwrite', `--bs=${block}`, `--size=${size}`, `--io_size=${amount}`]
    const target = ['--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`, '--iodepth=16']
    await runTool('fio', [...job, ...target, '--randseed=7', '--refill_buffers'])
  }
  await monitor.stop()
  await rm(socket, { force: true })
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
}
