/**
 * The folder tools/demo shows a whole small lab in half a minute: `npm run demo`.
 * - `make-image` makes an ext4 image of files of this machine, without mounting anything.
 * - `demo` lets four machines restore from it and from each other, then asks other programs whether the disks are right.
 */

import { copyFile, open, rm, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { EXIT, isMeshError, MeshError } from '../../protocol/errors.ts'
import { formatBytes, formatTable } from '../cli/format.ts'
import { firstDifference } from '../lab/compare.ts'
import { Lab } from '../lab/local-lab.ts'
import { Random } from '../lab/random.ts'
import { hasTool, runTool } from '../lab/run-tool.ts'
import { changeFiles, scribble } from '../lab/session.ts'
import { isExt, makeImage } from './make-image.ts'

const HELP = `npm run demo -- [--image PATH] [--size MIB] [--json] [--keep]

Makes an image with thousands of real files (or takes PATH), publishes it, lets four machines restore from it and from
each other, stops the master, damages two machines' disks, lets them restore from the others, and checks every byte.

  --image PATH  use this file instead of a fresh ext4 image
  --size MIB    size of the fresh image, at least 64 (default 320)
  --json        print the outcome as one JSON object on the last line: "verified" is true if every check agreed
  --keep        leave the disks and state directories in place and say where they are
`

const MACHINES = ['pc1', 'pc2', 'pc3', 'pc4'] as const
const DAMAGED = ['pc1', 'pc2'] as const
const SESSION_SEED = 7

interface Row {
  readonly machine: string
  readonly step: 'provision' | 'restore'
  readonly receipt: RestoreResult
}

interface Check {
  readonly machine: string
  readonly check: 'bytes' | 'e2fsck' | 'veritysetup'
  readonly ok: boolean
  readonly note: string
}

/** What the demo found. */
interface Outcome {
  readonly rows: readonly Row[]
  readonly checks: readonly Check[]
  /** Whether every receipt and every check agreed. */
  readonly verified: boolean
  readonly seconds: number
}

/** The flags as given, checked. Errors: USAGE. */
function readFlags() {
  const { values } = parseArgs({
    options: {
      image: { type: 'string' },
      size: { type: 'string', default: '320' },
      json: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const sizeMib = Number(values.size)
  if (!Number.isInteger(sizeMib) || sizeMib < 64)
    throw new MeshError('USAGE', `--size ${values.size} is no number of MiB from 64 up`)
  return { ...values, sizeMib }
}

async function main(): Promise<number> {
  const { image, sizeMib, json, keep, help } = readFlags()
  if (help) {
    process.stdout.write(HELP)
    return EXIT.ok
  }
  const lab = await Lab.open()
  const { signal } = stopOnSignals(lab)
  let outcome: Outcome
  try {
    outcome = await runDemo(lab, image, sizeMib * 1024 ** 2, signal)
  } catch (error) {
    // After a stop every step fails: the stop is the cause, whatever the failure says.
    if (signal.aborted) return EXIT.interrupted
    throw error
  } finally {
    await lab.close({ keep })
    say(keep ? `kept: ${lab.dir}` : `removed: ${lab.dir}`)
  }
  if (json) say(JSON.stringify(asJson(outcome)))
  return outcome.verified ? EXIT.ok : EXIT.unexpected
}

/** Ctrl-C stops every process. The files are removed later, when nothing writes any more. */
function stopOnSignals(lab: Lab): AbortController {
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    // A terminal and npm may both send the signal.
    process.on(signal, () => {
      if (stop.signal.aborted) return
      say(`\n${signal}: stopping every process`)
      stop.abort()
      void lab.close({ keep: true })
    })
  }
  return stop
}

/** `size`: bytes of the fresh image, which is made if no `given` one is named. */
async function runDemo(lab: Lab, given: string | undefined, size: number, signal: AbortSignal): Promise<Outcome> {
  const startedAt = performance.now()
  const image = given === undefined ? await freshImage(lab, size, signal) : await givenImage(given)
  const rows = await runLab(lab, image, signal)
  const checks = await checkDisks(lab, image, rows, signal)
  const verified = rows.every((row) => row.receipt.verified) && checks.every((check) => check.ok)
  const seconds = (performance.now() - startedAt) / 1000
  say(`\n${table(rows)}\n`)
  for (const { machine, check, ok, note } of checks) say(`${ok ? 'ok  ' : 'FAIL'} ${machine} ${check}: ${note}`)
  say(`\n${verified ? 'Everything holds' : 'NOT everything holds'}, after ${seconds.toFixed(1)} s.`)
  return { rows, checks, verified, seconds }
}

function asJson({ rows, checks, verified, seconds }: Outcome): object {
  const machines = rows.map(({ step, receipt }) => ({ step, ...receipt }))
  return { event: 'demo', verified, seconds, machines, checks }
}

async function freshImage(lab: Lab, size: number, signal: AbortSignal): Promise<string> {
  say(`Making an ext4 image of ${formatBytes(size)} from files of this machine`)
  const path = lab.path('model.img')
  const made = await makeImage(path, size, lab.dir, signal)
  await rm(lab.path('files'), { recursive: true })
  say(`  ${made.files} files, ${formatBytes(made.bytes)}; the rest is free space`)
  return path
}

async function givenImage(text: string): Promise<string> {
  // `npm run demo` changes to the package's folder, but the user gave the path from where he stands.
  const path = resolve(process.env.npm_lifecycle_event === 'demo' ? (process.env.INIT_CWD ?? '.') : '.', text)
  const facts = await stat(path).catch(() => undefined)
  if (facts?.isFile() !== true || facts.size === 0)
    throw new MeshError('DISK_MISSING', `${path} is no file with content`)
  return path
}

/** Takes a small lab through its whole life. Every step is a real `mesh` process. */
async function runLab(lab: Lab, image: string, signal: AbortSignal): Promise<Row[]> {
  const { size } = await stat(image)
  for (const machine of MACHINES) await emptyDisk(lab.path(`${machine}.img`), size)
  say('The master publishes the image: mesh seed')
  const master = await lab.serve('master', ['seed', image, '--image', 'model'])
  const { root, release, seconds } = await master.event('published')
  say(`  release ${release}, root ${root}, hashed in ${Number(seconds).toFixed(1)} s`)

  say(`${MACHINES.length} machines join: mesh join`)
  const token = await lab.invite('master', MACHINES.length)
  for (const machine of MACHINES)
    await lab.ok(machine, ['join', token, '--disk', lab.path(`${machine}.img`), '--name', machine])

  say('All are provisioned at the same time, from the master and from each other: mesh restore')
  const provisioned = await restoreAll(lab, MACHINES)
  const serving = new Map(
    await Promise.all(MACHINES.map(async (machine) => [machine, await lab.serve(machine, ['up'])] as const)),
  )
  say('The master is switched off; two machines have a session')
  await master.stop()
  const random = new Random(SESSION_SEED)
  for (const machine of DAMAGED) {
    await serving.get(machine)?.stop()
    if (await isExt(image)) await changeFiles(lab.path(`${machine}.img`), lab.dir, random, signal)
    await scribble(lab.path(`${machine}.img`), size, 64, random)
  }
  say('Both restore from the other lab machines: mesh restore')
  const restored = await restoreAll(lab, DAMAGED)
  for (const row of restored) {
    if (row.receipt.peers.some((peer) => peer.name === 'master'))
      throw new Error('the master was off, and yet it served')
  }
  const step = (name: Row['step']) => (row: Omit<Row, 'step'>) => ({ ...row, step: name })
  return [...provisioned.map(step('provision')), ...restored.map(step('restore'))]
}

async function restoreAll(lab: Lab, machines: readonly string[]): Promise<Omit<Row, 'step'>[]> {
  return Promise.all(
    machines.map(async (machine) => ({
      machine,
      receipt: (await lab.ok(machine, ['restore'])) as unknown as RestoreResult,
    })),
  )
}

async function emptyDisk(path: string, size: number): Promise<void> {
  const file = await open(path, 'w')
  await file.truncate(size)
  await file.close()
}

/** Checks every disk by programs other than our own. */
async function checkDisks(lab: Lab, image: string, rows: readonly Row[], signal: AbortSignal): Promise<Check[]> {
  say('Every disk is compared with the image, byte for byte, and checked by e2fsck and veritysetup')
  const checks: Check[] = []
  const verity = await hasTool('veritysetup')
  if (!verity) say('  veritysetup is not installed (package cryptsetup-bin): the root is not checked by it')
  for (const machine of MACHINES) {
    const disk = lab.path(`${machine}.img`)
    const difference = await firstDifference(image, disk, signal)
    const note = difference === undefined ? 'equal to the image' : `differs at byte ${difference}`
    checks.push({ machine, check: 'bytes', ok: difference === undefined, note })
    if (await isExt(disk))
      checks.push({ machine, check: 'e2fsck', ...(await passes('e2fsck', ['-fn', disk], 'clean', signal)) })
    const receipt = rows.findLast((row) => row.machine === machine)?.receipt
    if (verity && receipt !== undefined)
      checks.push({ machine, check: 'veritysetup', ...(await checkRoot(lab, machine, receipt, signal)) })
  }
  return checks
}

/** Checks disk, tree and root at once by veritysetup, whose layout our stored tree has. */
async function checkRoot(
  lab: Lab,
  machine: string,
  receipt: RestoreResult,
  signal: AbortSignal,
): Promise<{ ok: boolean; note: string }> {
  const blockSize = 65536
  const padded = lab.path(`${machine}.padded`)
  await copyFile(lab.path(`${machine}.img`), padded)
  const file = await open(padded, 'r+')
  await file.truncate(receipt.blocks.total * blockSize)
  await file.close()
  if (receipt.blocks.total === 1) return { ok: true, note: 'one block has no tree' }
  const tree = lab.path(machine, 'trees', `${receipt.root}.tree`)
  const shape = [
    '--no-superblock',
    '--salt=-',
    '--hash=sha256',
    `--data-block-size=${blockSize}`,
    `--hash-block-size=${blockSize}`,
  ]
  const result = await passes(
    'veritysetup',
    ['verify', ...shape, `--data-blocks=${receipt.blocks.total}`, padded, tree, receipt.root],
    'agrees with the root',
    signal,
  )
  await rm(padded)
  return result
}

async function passes(
  tool: string,
  args: readonly string[],
  note: string,
  signal: AbortSignal,
): Promise<{ ok: boolean; note: string }> {
  return runTool(tool, args, signal).then(
    () => ({ ok: true, note }),
    (error: Error) => {
      signal.throwIfAborted()
      return { ok: false, note: error.message }
    },
  )
}

function table(rows: readonly Row[]): string {
  const heading = [
    'machine',
    'step',
    'dirty',
    'local',
    'copied',
    'zero',
    'fetched',
    'MiB',
    'seconds',
    'verified',
    'from',
  ]
  return formatTable([
    heading,
    ...rows.map(({ machine, step, receipt }) => [
      machine,
      step,
      ...(['dirty', 'local', 'copied', 'zero', 'fetched'] as const).map((count) => String(receipt.blocks[count])),
      (receipt.bytes.received / 1024 ** 2).toFixed(1),
      receipt.seconds.toFixed(1),
      receipt.verified ? 'yes' : 'NO',
      receipt.peers.map((peer) => `${peer.name} ${peer.blocks}`).join(', '),
    ]),
  ])
}

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

try {
  process.exitCode = await main()
} catch (error) {
  const advice = isMeshError(error) ? `\n      ${error.advice}` : ''
  process.stderr.write(`demo: ${error instanceof Error ? error.message : String(error)}${advice}\n`)
  process.exitCode = isMeshError(error) ? error.exitCode : 1
}
