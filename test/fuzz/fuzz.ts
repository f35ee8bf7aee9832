import { randomInt } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { digestOf, toHex } from '../../protocol/digest.ts'
import { formatTable } from '../../tools/cli/format.ts'
import { Coverage } from './coverage.ts'
import { removeFolder } from './folder.ts'
import { type Finding, fuzz } from './fuzzer.ts'
import { TARGETS } from './targets.ts'

const HELP = `npm run fuzz -- [--target WORDS] [--minutes M] [--seed S] [--keep DIR]

Tries changed encodings on every decoder, and keeps those that reach new code. A decoder may throw its own errors only, within
500 ms and 48 MiB; what it accepts must come out of its own encoding as it went in.

  --target T   only targets whose name holds these words (default: all, one after the other)
  --minutes M  how long for each target (default 1)
  --seed S     where randomness begins (default: a random one, printed). Coverage decides what is kept, so a run is repeated
               by its findings, not by its seed
  --keep DIR   where inputs that break a promise are written (default: test/fixtures/fuzz)
`
const { values } = parseArgs({
  options: {
    target: { type: 'string', default: '' },
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    keep: { type: 'string', default: join(import.meta.dirname, '../fixtures/fuzz') },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(HELP)
  process.exit(0)
}
process.on('exit', removeFolder)
process.on('unhandledRejection', (error) => {
  console.log(error)
  process.exitCode = 1
})
console.log(`fuzzing: seed ${values.seed}`)
const rows = [['target', 'inputs', 'accepted', 'kept', 'parts of the code', 'findings']]
for (const target of TARGETS.filter(({ name }) => name.includes(values.target))) {
  const end = performance.now() + Number(values.minutes) * 60_000
  const coverage = await Coverage.start()
  const result = await fuzz(target, {
    seed: Number(values.seed),
    more: () => performance.now() < end,
    coverage,
    costs: true,
  })
  coverage.stop()
  for (const finding of result.findings) await keep(finding)
  const { inputs, accepted, corpus, findings } = result
  rows.push([target.name, inputs, accepted, corpus, coverage.size, findings.length].map(String))
  console.log(rows.at(-1)!.join(' | '))
}
console.log(formatTable(rows))

async function keep({ target, input, why }: Finding): Promise<void> {
  process.exitCode = 1
  const folder = join(values.keep, target)
  const path = join(folder, toHex(digestOf(input)).slice(0, 16))
  await mkdir(folder, { recursive: true })
  await writeFile(path, input)
  console.log(`${path}: ${why}`)
}
