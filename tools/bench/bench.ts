import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { formatTable } from '../format.ts'
import { Lab } from '../lab/local-lab.ts'
import { benchRestore, benchSeed, benchSparse, type Figure } from './benches.ts'

const HELP = `npm run bench -- NAME [--size GIB] [--json]

  seed     hash and publish a cached file, against SHA-256 of the same blocks on all cores
  restore  provision one machine from one master, then restore by scan a disk that is clean
  sparse   seed and restore a sparse file (default 100 GiB): peak memory

Disks are made in the system's temporary directory; TMPDIR names another one.
`

const BENCHES = { seed: benchSeed, restore: benchRestore, sparse: benchSparse } as const

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      size: { type: 'string' },
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
  const sizeGib = Number(values.size ?? (name === 'sparse' ? 100 : 4))
  if (!(sizeGib > 0)) throw new MeshError('USAGE', `--size ${values.size} is no number of GiB`)
  // What is measured is what is installed.
  await import('../build.ts')
  const lab = await Lab.open({ entry: join(import.meta.dirname, '../../dist/mesh.js') })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void lab.close().finally(() => process.exit(130)))
  }
  try {
    const figures = await BENCHES[name as keyof typeof BENCHES](lab, sizeGib * 1024 ** 3)
    if (values.json) process.stdout.write(`${JSON.stringify({ event: 'bench', bench: name, sizeGib, figures })}\n`)
    else process.stdout.write(`${table(figures)}\n`)
  } finally {
    await lab.close()
  }
}

function table(figures: readonly Figure[]): string {
  const rows = figures.map(({ what, seconds, mibPerSecond, cpuSeconds, peakMib, ratio }) => [
    what,
    seconds.toFixed(2),
    String(Math.round(mibPerSecond)),
    cpuSeconds?.toFixed(2) ?? '',
    peakMib === undefined ? '' : String(Math.round(peakMib)),
    ratio?.toFixed(2) ?? '',
  ])
  return formatTable([['what', 'seconds', 'MiB/s', 'CPU s', 'peak MiB', 'of limit'], ...rows])
}

try {
  await main()
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = isMeshError(error) ? error.exitCode : 1
}
