/**
 * The folder tools/bench measures the built `mesh` against limits that are taken in the same run: `npm run bench`.
 * - `benches` has what all benchmarks share: files to measure with, time, processor time and memory of a process.
 * - `hash-limit` is the fastest that this machine can hash. `hash-bench`, `restore-bench`, `monitor-bench`,
 *   `transport-bench` and `compression-bench` measure one thing each.
 * - `transport-peer` is a process that `transport-bench` talks to; `stock-end` is libp2p without our changes.
 */

import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { formatTable } from '../cli/format.ts'
import { Lab } from '../lab/local-lab.ts'
import { benchSparse, type Figure } from './benches.ts'
import { benchCompression } from './compression-bench.ts'
import { benchScan, benchSeed } from './hash-bench.ts'
import { benchMonitor } from './monitor-bench.ts'
import { benchRestore } from './restore-bench.ts'
import { benchTransport } from './transport-bench.ts'

const HELP = `npm run bench -- NAME [--size GIB] [--peers N] [--flags=FLAGS] [--json]

  seed       hash and publish a cached file, against SHA-256 of as many bytes on all cores (default 4 GiB)
  scan       restore a clean cached disk without a write log, and verify it, against the same (default 4 GiB)
  restore    provision one machine, restore it by scan and from its write log: clean, and 2 % dirtied (default 1 GiB)
  sparse     seed a sparse file and restore it from --peers machines (default 100 GiB, 1): peak memory
  monitor    the NBD server of mesh monitor against nbdkit (default 1 GiB), first writes, and opening a log of 1 TiB
  transport  one connection over loopback (default 0.25 GiB), against libp2p with noise and yamux as they come
  compression  blocks of random bytes and of system files (default 0.0625 GiB): what compressing costs, and when it is chosen

--flags='--no-maglev …' gives mesh these flags of Node instead of its own, --flags= none.
Disks are made in the system's temporary directory; TMPDIR names another one.
`

const BENCHES = {
  seed: benchSeed,
  scan: benchScan,
  restore: benchRestore,
  sparse: benchSparse,
  monitor: benchMonitor,
  transport: benchTransport,
  compression: benchCompression,
} as const
const DEFAULT_GIB: Readonly<Record<string, number>> = {
  sparse: 100,
  monitor: 1,
  restore: 1,
  transport: 0.25,
  compression: 0.0625,
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      size: { type: 'string' },
      peers: { type: 'string', default: '1' },
      flags: { type: 'string' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const [name = ''] = positionals
  if (values.help || name === '') {
    process.stdout.write(HELP)
    return
  }
  if (!Object.hasOwn(BENCHES, name))
    throw new MeshError('USAGE', `there is no benchmark ${name}; see npm run bench -- --help`)
  const sizeGib = Number(values.size ?? DEFAULT_GIB[name] ?? 4)
  if (!(sizeGib > 0)) throw new MeshError('USAGE', `--size ${values.size} is no number of GiB`)
  const peers = Number(values.peers)
  if (!Number.isInteger(peers) || peers < 1)
    throw new MeshError('USAGE', `--peers ${values.peers} is no number of machines`)
  // The bundle is measured, because the bundle is what is installed.
  await import('../build.ts')
  const entry = join(import.meta.dirname, '../../dist/mesh.js')
  const lab = await Lab.open({ entry, flags: values.flags?.split(' ').filter((flag) => flag !== '') })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void lab.close().finally(() => process.exit(130)))
  }
  try {
    const figures = await BENCHES[name as keyof typeof BENCHES](lab, sizeGib * 1024 ** 3, peers)
    if (values.json) process.stdout.write(`${JSON.stringify({ event: 'bench', bench: name, sizeGib, figures })}\n`)
    else process.stdout.write(`${table(figures)}\n`)
  } finally {
    await lab.close()
  }
}

function table(figures: readonly Figure[]): string {
  const rounded = (value: number | undefined): string => (value === undefined ? '' : String(Math.round(value)))
  const rows = figures.map((figure) => [
    figure.what,
    figure.seconds.toFixed(figure.seconds < 1 ? 4 : 2),
    rounded(figure.mibPerSecond),
    figure.cpuSeconds?.toFixed(2) ?? '',
    rounded(figure.peakMib),
    figure.ratio?.toFixed(2) ?? '',
    rounded(figure.perSecond),
    rounded(figure.flushesPerThousand),
    figure.cpuMsPerMib?.toFixed(2) ?? '',
    figure.wireRatio?.toFixed(3) ?? '',
    rounded(figure.packFrom),
  ])
  const head = [
    'what',
    'seconds',
    'MiB/s',
    'CPU s',
    'peak MiB',
    'of limit',
    'requests/s',
    'flushes/1000',
    'CPU ms/MiB',
    'wire/content',
    'packed from',
  ]
  // Most benchmarks fill only some of the columns.
  const filled = head.map((_, column) => rows.some((row) => row[column] !== ''))
  return formatTable([head, ...rows].map((row) => row.filter((_, column) => filled[column])))
}

try {
  await main()
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = isMeshError(error) ? error.exitCode : 1
}
