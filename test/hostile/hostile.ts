import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Invitations } from '../../node/agent/run/invitation-desk.ts'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { formatTable } from '../../tools/cli/format.ts'
import { Lab, type MeshProcess } from '../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../tools/lab/node-flags.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { ATTACKS } from './attacks.ts'
import { type LocalTrial, localTable, tryLocally } from './local.ts'
import { tryMulticast } from './multicast.ts'
import { residentMib } from './resident.ts'

const HELP = `npm run hostile -- [--attack WORDS] [--local] [--sources] [--blocks N] [--rest S] [--seed S] [--json]

Restores a machine in a lab of a master, a lab machine and one hostile member, once for each attack, and compares
time, memory and open files with the same lab without the hostile member.

  --attack WORDS only attacks whose name holds these words
  --local        only attacks by programs of the same machine, on the sockets of mesh up and mesh monitor, and by forged multicast DNS
  --sources      no honest machine but the master has the image
  --blocks N     blocks of 64 KiB of the image (default 1024)
  --rest S       seconds after which memory is looked at again (default 30)
  --seed S       the same seed gives the same image and the same changes (default: a random one, printed)
  --json         print the result as one line of JSON
`
/** A restore among hostile members may take so many times as long as without them, and so many seconds more. */
const MOST_TIMES = 1.5
const MOST_SECONDS_MORE = 3
/** No process may grow by more. */
const MOST_GROWTH_MIB = 64
/** Or have so many more files open. */
const MOST_HANDLES = 64
/** Whatever else the computer does makes a restore slower, never faster: one that is too slow is tried so often. */
const TRIES = 3
const BASELINES = 3
/** What a machine of a lab sends. Over loopback alone a restore would be over before a hostile member is asked for anything. */
const LINK = ['--max-upload', '100Mbit']
/** An attack that stops a restore is given up. */
const GIVE_UP_MS = 120_000
const NOTHING: Taken = { mib: 0, handles: 0 }
const ATTACKER = join(import.meta.dirname, 'attacker.ts')

const { values } = parseArgs({
  options: {
    attack: { type: 'string', default: '' },
    blocks: { type: 'string', default: '1024' },
    rest: { type: 'string', default: '30' },
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
const restMs = Number(values.rest) * 1000
const GOOD = values.sources ? [] : ['good']
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
  /** Whether a warning, of whatever machine, or the receipt names the hostile member for what it did. */
  readonly named: boolean
  readonly victimMib: number
  readonly victimHandles: number
  /** The most that a serving process grew by, while the attack went on, and after a rest. */
  readonly grownMib: number
  readonly grownHandles: number
  readonly restedMib: number
  /** Uses of the invitation that strangers have taken. */
  readonly invited: number
}

/** What a process takes. */
interface Taken {
  readonly mib: number
  readonly handles: number
}

if (!values.json) console.log(`hostile members: seed ${values.seed}`)
const build = spawnSync(process.execPath, [join(import.meta.dirname, '../../tools/build.ts')], { stdio: 'inherit' })
if (build.status !== 0) process.exit(1)
const entry = join(import.meta.dirname, '../../dist/mesh.js')
let lab = await Lab.open({ entry })
const serving = new Map<string, MeshProcess>()
let image: Buffer
let token: string
let attackers = 0
try {
  const members = names.length > 0 ? await tryMembers() : undefined
  await lab.close()
  lab = await Lab.open({ entry })
  const local = [...(await tryLocally(lab, values.attack, random)), ...(await tryMulticast(values.attack, random))]
  report(members, local)
} finally {
  await lab.close()
}

/** What became of all restores. */
interface Outcome {
  readonly baseline: Trial
  readonly trials: readonly Trial[]
}

async function tryMembers(): Promise<Outcome> {
  await setUp()
  const baseline = await measureBaseline()
  if (!values.json) console.log(lineOf(baseline, baseline))
  const trials: Trial[] = []
  for (const name of names) {
    let best = await attacked(name)
    for (let left = TRIES - 1; left > 0 && isSlow(best, baseline); left--) {
      const next = await attacked(name)
      if (next.seconds < best.seconds) best = next
    }
    trials.push(best)
    if (!values.json) console.log(lineOf(best, baseline))
  }
  return { baseline, trials }
}

async function setUp(): Promise<void> {
  image = await startMaster(lab, blocks, random)
  token = await lab.invite('master', 1_000)
  for (const name of [...GOOD, 'victim']) await joinRestored(name)
  await lab.stop('master')
  serving.set('master', await lab.serve('master', ['seed', lab.path('model.img'), ...LINK]))
  for (const name of GOOD) serving.set(name, await lab.serve(name, ['up', ...LINK]))
}

async function joinRestored(name: string): Promise<void> {
  for (let left = TRIES; left > 0; left--) {
    const joined = joinMachine(lab, name, image, token)
    // A master on a computer that has much else to do may take longer than a join waits.
    const failed = await joined.then(
      () => false,
      (error: unknown) => {
        if (left === 1) throw error
        return true
      },
    )
    if (!failed) break
  }
  await lab.ok(name, ['restore'])
}

/** The middle one of several trials without the hostile member. */
async function measureBaseline(): Promise<Trial> {
  const trials: Trial[] = []
  for (let i = 0; i < BASELINES; i++) trials.push(await trial('nobody is hostile', 'nobody', await taken()))
  return trials.toSorted((a, b) => a.seconds - b.seconds)[Math.floor(BASELINES / 2)]!
}

/** The victim knows who is a member before its restore begins, as in a lab where nobody was enrolled this minute. */
async function hearOfMembers(): Promise<void> {
  await dirty(lab.path('victim.img'), [0], random)
  await lab.ok('victim', ['restore'])
}

/** Each attack has a member of its own: one that was banned is not let in again. */
async function attacked(name: string): Promise<Trial> {
  const member = `evil${++attackers}`
  await joinRestored(member)
  await hearOfMembers()
  const before = await taken()
  const targets = Object.fromEntries([...SERVING, 'victim'].map((one) => [one, lab.address(one)]))
  const args = [
    ...NODE_FLAGS,
    ATTACKER,
    lab.path(member),
    lab.address(member) ?? '',
    JSON.stringify(targets),
    token,
    name,
  ]
  const evil = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    await new Promise<void>((resolve, reject) => {
      evil.stdout.once('data', () => resolve())
      evil.once('exit', (code) => reject(new Error(`the attacker ended with ${code}`)))
    })
    const used = await usedUp()
    const done = await trial(name, member, before, evil)
    return { ...done, invited: (await usedUp()) - used }
  } finally {
    evil.kill('SIGKILL')
  }
}

async function trial(attack: string, member: string, before: readonly Taken[], evil?: ChildProcess): Promise<Trial> {
  await sleep(1_000)
  await dirty(lab.path('victim.img'), Array(blocks).keys(), random)
  // It has all of this from earlier restores.
  await rm(lab.path('victim', 'stage'), { recursive: true, force: true })
  const at = performance.now()
  const restore = await lab.start('victim', ['restore'])
  const late = setTimeout(() => restore.child.kill('SIGKILL'), GIVE_UP_MS)
  let [victim, grown]: Taken[] = [NOTHING, NOTHING]
  let ended = false
  const exited = restore.exited.finally(() => {
    ended = true
  })
  while (!ended) {
    victim = most([victim, await takenBy(restore.child.pid)])
    grown = most([grown, growth(before, await taken())])
    await Promise.race([exited, sleep(100)])
  }
  clearTimeout(late)
  const { result, events, signal } = await exited
  const seconds = (performance.now() - at) / 1000
  evil?.kill('SIGKILL')
  const receipt = result as unknown as Partial<RestoreResult> & { code?: string }
  const isRight = (await readFile(lab.path('victim.img'))).equals(image)
  const all = [...events, ...[...serving.values()].flatMap((one) => one.events)]
  const told = all.some(({ event, text }) => event === 'warning' && String(text).includes(`${member} `))
  await sleep(restMs)
  const rested = growth(before, await taken())
  const code = receipt?.verified === true ? undefined : (receipt?.code ?? String(signal))
  return {
    attack,
    seconds,
    verified: receipt?.verified === true && isRight,
    ...(code === undefined ? {} : { code }),
    named: told || receipt?.peers?.some(({ name, bad }) => name === member && bad > 0) === true,
    victimMib: victim!.mib,
    victimHandles: victim!.handles,
    grownMib: grown!.mib,
    grownHandles: grown!.handles,
    restedMib: rested.mib,
    invited: 0,
  }
}

/** How often the invitation was used. */
async function usedUp(): Promise<number> {
  const { invitations } = (await lab.ok('master', ['invite', '--list'])) as unknown as Invitations
  return invitations.reduce((sum, { usedBy }) => sum + usedBy.length, 0)
}

async function taken(): Promise<Taken[]> {
  return Promise.all(SERVING.map((name) => takenBy(serving.get(name)?.child.pid)))
}

function growth(before: readonly Taken[], after: readonly Taken[]): Taken {
  return most(
    after.map(({ mib, handles }, i) => ({ mib: mib - before[i]!.mib, handles: handles - before[i]!.handles })),
  )
}

function most(all: readonly (Taken | undefined)[]): Taken {
  const known = all.filter((one) => one !== undefined)
  return { mib: Math.max(...known.map(({ mib }) => mib)), handles: Math.max(...known.map(({ handles }) => handles)) }
}

/** Resident memory and open files now (proc_pid_fd(5)). */
async function takenBy(pid: number | undefined): Promise<Taken> {
  const open = await readdir(`/proc/${pid}/fd`).catch(() => [])
  return { mib: await residentMib(pid), handles: open.length }
}

function isSlow({ seconds }: Trial, baseline: Trial): boolean {
  return seconds > baseline.seconds * MOST_TIMES + MOST_SECONDS_MORE
}

function faultsOf(trial: Trial, baseline: Trial): string[] {
  return [
    ...(trial.verified ? [] : [trial.code ?? 'wrong content']),
    ...(isSlow(trial, baseline) ? ['slow'] : []),
    ...(trial.invited > 0 ? ['invitation used up'] : []),
    ...(trial.victimMib - baseline.victimMib > MOST_GROWTH_MIB ? ['victim grows'] : []),
    ...(trial.grownMib > MOST_GROWTH_MIB ? ['others grow'] : []),
    ...(trial.grownHandles > MOST_HANDLES || trial.victimHandles - baseline.victimHandles > MOST_HANDLES
      ? ['files']
      : []),
  ]
}

function cells(trial: Trial, baseline: Trial): string[] {
  const { attack, seconds, named, victimMib, victimHandles, grownMib, grownHandles, restedMib } = trial
  return [
    attack,
    `${seconds.toFixed(1)} s`,
    (seconds / baseline.seconds).toFixed(2),
    named ? 'named' : '',
    `${victimMib.toFixed(0)} MiB, ${victimHandles}`,
    `${grownMib.toFixed(0)} MiB, ${grownHandles}`,
    `${restedMib.toFixed(0)} MiB`,
    faultsOf(trial, baseline).join(', ') || 'ok',
  ]
}

function lineOf(trial: Trial, baseline: Trial): string {
  return cells(trial, baseline).join(' | ')
}

function report(members: Outcome | undefined, local: readonly LocalTrial[]): void {
  const { baseline, trials } = members ?? { trials: [] }
  const bad = trials.filter((one) => faultsOf(one, baseline!).length > 0).length
  const failed = bad + local.filter((one) => !one.held).length
  if (values.json) console.log(JSON.stringify({ seed: values.seed, blocks, baseline, trials, local, failed }))
  else {
    const head = ['attack', 'time', 'ratio', 'offender', 'victim', 'others grow', `after ${values.rest} s`, 'result']
    if (baseline !== undefined)
      console.log(formatTable([head, cells(baseline, baseline), ...trials.map((one) => cells(one, baseline))]))
    if (local.length > 0) console.log(localTable(local))
    console.log(`${trials.length + local.length - failed} held, ${failed} failed`)
  }
  process.exitCode = failed > 0 ? 1 : 0
}
