import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { formatTable } from '../../tools/cli/format.ts'
import { Lab, type MeshProcess } from '../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../tools/lab/node-flags.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { ATTACKS } from './attacks.ts'
import { tryLocally } from './local.ts'
import { residentMib } from './resident.ts'

const HELP = `npm run hostile -- [--attack WORDS] [--local] [--sources] [--blocks N] [--seed S] [--json]

Restores a machine in a lab of a master, two lab machines and one hostile member, once for each attack, and
compares time and memory with the same lab when the hostile member is honest.

  --attack WORDS only attacks whose name holds these words
  --local        only attacks by programs of the same machine, on the sockets of mesh up and mesh monitor
  --sources      no honest machine but the master has the image
  --blocks N     blocks of 64 KiB of the image (default 1024)
  --seed S       the same seed gives the same image and the same changes (default: a random one, printed)
  --json         print the result as one line of JSON
`
/** A restore among hostile members may take so many times as long as without them, and so many seconds more. */
const MOST_TIMES = 1.5
const MOST_SECONDS_MORE = 3
/** No process may grow by more. */
const MOST_GROWTH_MIB = 64
/** After so long memory is looked at again. */
const REST_MS = 10_000
/** An attack that stops a restore is given up. */
const GIVE_UP_MS = 120_000
const ATTACKER = join(import.meta.dirname, 'attacker.ts')

const { values } = parseArgs({
  options: {
    attack: { type: 'string', default: '' },
    blocks: { type: 'string', default: '1024' },
    seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    local: { type: 'boolean', default: false },
    sources: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(HELP)
  process.exit(0)
}
const blocks = Number(values.blocks)
const GOOD = values.sources ? [] : ['good1', 'good2']
const SERVING = ['master', ...GOOD]
const random = new Random(Number(values.seed))
const names = values.local ? [] : Object.keys(ATTACKS).filter((name) => name.includes(values.attack))

/** What became of one restore, and of the machines around it. */
interface Trial {
  readonly attack: string
  readonly seconds: number
  readonly verified: boolean
  /** Why the restore failed. */
  readonly code?: string
  /** Whether a warning or the receipt names the hostile member for what it did. */
  readonly named: boolean
  readonly victimMib: number
  /** The most that a serving process grew by, while the attack went on, and after a rest. */
  readonly grownMib: number
  readonly restedMib: number
}

if (!values.json) console.log(`hostile members: seed ${values.seed}`)
const build = spawnSync(process.execPath, [join(import.meta.dirname, '../../tools/build.ts')], { stdio: 'inherit' })
if (build.status !== 0) process.exit(1)
const entry = join(import.meta.dirname, '../../dist/mesh.js')
let lab = await Lab.open({ entry })
const serving = new Map<string, MeshProcess>()
let image: Buffer
try {
  if (names.length > 0) await tryMembers()
  await lab.close()
  lab = await Lab.open({ entry })
  if (!(await tryLocally(lab, values.attack, random))) process.exitCode = 1
} finally {
  await lab.close()
}

async function tryMembers(): Promise<void> {
  await setUp()
  const honest = await lab.serve('evil', ['up'])
  const baselines = [await trial('nobody is hostile'), await trial('nobody is hostile')]
  await honest.stop()
  const baseline = baselines.toSorted((a, b) => a.seconds - b.seconds)[0]!
  const trials: Trial[] = []
  for (const name of names) {
    trials.push(await attacked(name))
    if (!values.json) console.log(lineOf(trials.at(-1)!, baseline))
  }
  report(baseline, trials)
}

async function setUp(): Promise<void> {
  image = await startMaster(lab, blocks, random)
  const token = await lab.invite('master')
  for (const name of [...GOOD, 'evil', 'victim']) {
    await joinMachine(lab, name, image, token)
    await lab.ok(name, ['restore'])
  }
  await lab.stop('master')
  serving.set('master', await lab.serve('master', ['seed', lab.path('model.img')]))
  for (const name of GOOD) serving.set(name, await lab.serve(name, ['up']))
}

async function attacked(name: string): Promise<Trial> {
  const targets = Object.fromEntries([...SERVING, 'victim'].map((one) => [one, lab.address(one)]))
  const args = [...NODE_FLAGS, ATTACKER, lab.path('evil'), lab.address('evil') ?? '', JSON.stringify(targets), name]
  const evil = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    await new Promise<void>((resolve, reject) => {
      evil.stdout.once('data', () => resolve())
      evil.once('exit', (code) => reject(new Error(`the attacker ended with ${code}`)))
    })
    return await trial(name, evil)
  } finally {
    evil.kill('SIGKILL')
  }
}

async function trial(attack: string, evil?: ChildProcess): Promise<Trial> {
  const before = await memory()
  await sleep(1_000)
  await dirty(lab.path('victim.img'), Array(blocks).keys(), random)
  const at = performance.now()
  const restore = await lab.start('victim', ['restore'])
  const late = setTimeout(() => restore.child.kill('SIGKILL'), GIVE_UP_MS)
  let [victimMib, grownMib] = [0, 0]
  let ended = false
  const exited = restore.exited.finally(() => {
    ended = true
  })
  while (!ended) {
    victimMib = Math.max(victimMib, await residentMib(restore.child.pid))
    grownMib = Math.max(grownMib, growth(before, await memory()))
    await Promise.race([exited, sleep(100)])
  }
  clearTimeout(late)
  const { result, events, signal } = await exited
  const seconds = (performance.now() - at) / 1000
  evil?.kill('SIGKILL')
  const receipt = result as unknown as Partial<RestoreResult> & { code?: string }
  const isRight = (await readFile(lab.path('victim.img'))).equals(image)
  const told = events.some(({ event, text }) => event === 'warning' && String(text).includes('evil'))
  await sleep(REST_MS)
  const restedMib = growth(before, await memory())
  const code = receipt?.verified === true ? undefined : (receipt?.code ?? String(signal))
  return {
    attack,
    seconds,
    verified: receipt?.verified === true && isRight,
    ...(code === undefined ? {} : { code }),
    named: told || receipt?.peers?.some(({ name, bad }) => name === 'evil' && bad > 0) === true,
    victimMib,
    grownMib,
    restedMib,
  }
}

async function memory(): Promise<number[]> {
  return Promise.all(SERVING.map((name) => residentMib(serving.get(name)?.child.pid)))
}

function growth(before: readonly number[], after: readonly number[]): number {
  return Math.max(...after.map((mib, i) => mib - before[i]!))
}

function faultsOf(trial: Trial, baseline: Trial): string[] {
  return [
    ...(trial.verified ? [] : [trial.code ?? 'wrong content']),
    ...(trial.seconds > baseline.seconds * MOST_TIMES + MOST_SECONDS_MORE ? ['slow'] : []),
    ...(trial.victimMib - baseline.victimMib > MOST_GROWTH_MIB ? ['victim grows'] : []),
    ...(trial.grownMib > MOST_GROWTH_MIB ? ['others grow'] : []),
  ]
}

function cells(trial: Trial, baseline: Trial): string[] {
  const { attack, seconds, named, victimMib, grownMib, restedMib } = trial
  return [
    attack,
    `${seconds.toFixed(1)} s`,
    (seconds / baseline.seconds).toFixed(2),
    named ? 'named' : '',
    `${victimMib.toFixed(0)} MiB`,
    `${grownMib.toFixed(0)} MiB`,
    `${restedMib.toFixed(0)} MiB`,
    faultsOf(trial, baseline).join(', ') || 'ok',
  ]
}

function lineOf(trial: Trial, baseline: Trial): string {
  return cells(trial, baseline).join(' | ')
}

function report(baseline: Trial, trials: readonly Trial[]): void {
  const failed = trials.filter((one) => faultsOf(one, baseline).length > 0)
  if (values.json) console.log(JSON.stringify({ seed: values.seed, blocks, baseline, trials, failed: failed.length }))
  else {
    const head = ['attack', 'time', 'ratio', 'offender', 'victim', 'others grow', 'after 10 s', 'result']
    console.log(formatTable([head, cells(baseline, baseline), ...trials.map((one) => cells(one, baseline))]))
    console.log(`${trials.length - failed.length} held, ${failed.length} failed`)
  }
  process.exitCode = failed.length > 0 ? 1 : 0
}
