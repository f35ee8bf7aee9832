import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { readLogConfig } from '../../node/agent/log/log-config.ts'
import { peekLog } from '../../node/agent/log/log-peek.ts'
import { parseEraBlocks } from '../../node/writelog/era-blocks.ts'
import { Random } from '../../tools/lab/random.ts'

/** The only program of a guest (`initramfs.ts`): does what the kernel's command line says, and tells the host of it. */
const told = Object.fromEntries(
  [...readFileSync('/proc/cmdline', 'utf8').matchAll(/mesh\.(\w+)=(\S+)/g)].map(([, name, value]) => [name, value]),
) as { step?: string; seed?: string }
const execute = promisify(execFile)
const random = new Random(Number(told.seed))
const MASTER = '/dev/vda'
const DISK = '/dev/vdb'
const STATE = '/dev/vdc'
const ERA = '/dev/mapper/lab'
const LISTEN = { master: '/ip4/127.0.0.1/tcp/7001', pc: '/ip4/127.0.0.1/tcp/7002' } as const

function tell(event: string, facts: object = {}): void {
  process.stdout.write(`\n@@ ${JSON.stringify({ event, ...facts })}\n`)
}

async function run(program: string, ...args: string[]): Promise<string> {
  return (await execute(program, args, { maxBuffer: 64 * 1024 ** 2 })).stdout.trim()
}

/** That it fails, and why. */
async function mustFail(program: string, ...args: string[]): Promise<string> {
  const outcome = await run(program, ...args).then(
    () => undefined,
    (error: { stderr?: string }) => String(error.stderr).trim(),
  )
  if (outcome === undefined) throw new Error(`${program} ${args.join(' ')} was to fail`)
  return outcome
}

const argsOf = (machine: keyof typeof LISTEN, args: readonly string[]): string[] => [
  ...['/mesh/mesh.js', ...args, '--json', '--no-mdns', '--state', `/state/${machine}`, '--listen', LISTEN[machine]],
]

/** The result of a `mesh` command. */
async function mesh(machine: keyof typeof LISTEN, ...args: string[]): Promise<Record<string, unknown>> {
  const lines = (await run('node', ...argsOf(machine, args))).split('\n')
  return JSON.parse(lines.at(-1)!) as Record<string, unknown>
}

/** An emulated machine beside a busy one may be slower than a network may be. */
async function insist<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries === 5) throw error
    }
  }
}

/** A `mesh` command that serves, once it does. */
async function serve(machine: keyof typeof LISTEN, ...args: string[]): Promise<ChildProcess> {
  const child = spawn('node', argsOf(machine, args), { stdio: ['ignore', 'pipe', 'inherit'] })
  for await (const line of createInterface({ input: child.stdout! })) {
    if (line.includes('"event":"listening"')) {
      child.stdout!.resume()
      return child
    }
  }
  throw new Error(`mesh ${args.join(' ')} ended`)
}

/** Changes files without end, as a session does, with a sync now and then; the host ends it. */
function writeForEver(folder: string): never {
  const work = `${folder}/session-${random.seed}`
  mkdirSync(work, { recursive: true })
  for (let i = 0; ; i++) {
    const victims = readdirSync(work)
    if (victims.length > 40) for (const name of victims.slice(0, 30)) rmSync(`${work}/${name}`)
    const file = openSync(`${work}/${random.below(60)}`, random.below(2) === 0 ? 'w' : 'a')
    for (let parts = 1 + random.below(8); parts > 0; parts--) writeSync(file, random.bytes(1 + random.below(60_000)))
    if (random.below(4) === 0) fsyncSync(file)
    closeSync(file)
    if (i === 20) tell('writing')
  }
}

/** A session on a disk that the host serves over NBD. */
async function sessionOverNbd(): Promise<void> {
  await run('mount', '-t', 'ext4', MASTER, '/mnt')
  writeForEver('/mnt')
}

/** A lab of a master and a machine; the machine's disk is restored, then used through dm-era. */
async function lab(): Promise<void> {
  await run('mount', '-t', 'ext4', STATE, '/state')
  const first = !existsSync('/state/pc/machine.json')
  const master = await serve('master', 'seed', MASTER)
  tell('serving')
  if (first) {
    const { token } = await mesh('master', 'invite')
    await insist(() => mesh('pc', 'join', String(token), '--disk', DISK, '--name', 'pc'))
    tell('monitored', await mesh('pc', 'monitor', DISK, '--era', 'lab'))
    await run('dmsetup', 'remove', 'lab')
  }
  // In this order: a look completes the era that the crash cut off.
  const alone = await blocksOfToolAlone()
  tell('log', { ...(await look()), alone })
  tell('receipt', { receipt: await mesh('pc', 'restore', '--wait', '90s') })
  await run('cmp', MASTER, DISK)
  tell('equal')
  if (told.step === 'check') {
    tell('again', { receipt: await mesh('pc', 'restore') })
    master.kill('SIGTERM')
    await once(master, 'exit')
    await run('umount', '/state')
    return
  }
  const monitor = ['monitor', DISK, '--era', 'lab', '--hooks', makeHook()]
  tell('hooked', { first: await mesh('pc', ...monitor), again: await mesh('pc', ...monitor) })
  const refused = [await mustFail('blkdiscard', '--force', '--length', '1MiB', ERA)]
  await run('mount', '-t', 'ext4', '-o', 'discard', ERA, '/mnt')
  refused.push(await mustFail('fstrim', '/mnt'))
  tell('refused', { refused, restore: await mustFail('node', ...argsOf('pc', ['restore'])) })
  tell('used', { ...(await look()), hostname: readFileSync('/mnt/hostname', 'utf8') })
  writeForEver('/mnt')
}

/** A hook that names the machine, in a file of the disk; the guest has no shell. */
function makeHook(): string {
  mkdirSync('/hooks', { recursive: true, mode: 0o755 })
  const script = `#!${process.execPath}
const { execFileSync } = require('node:child_process')
execFileSync('mount', ['-t', 'ext4', process.env.MESH_DEVICE, '/mnt'])
require('node:fs').writeFileSync('/mnt/hostname', process.env.MESH_MACHINE)
execFileSync('umount', ['/mnt'])
console.log(process.env.MESH_DEVICE)
`
  writeFileSync('/hooks/10-name', script, { mode: 0o755 })
  return '/hooks'
}

/** What the log says, whether the era device is active or not. */
async function look(): Promise<object> {
  const log = await peekLog((await readLogConfig('/state/pc'))!, DISK)
  return log.state === 'unknown' ? log : { state: 'known', dirty: [...log.dirty.runs()] }
}

/** How many blocks of the last session era_invalidate finds in metadata that nobody has activated since. */
async function blocksOfToolAlone(): Promise<number> {
  const config = await readLogConfig('/state/pc')
  if (config?.source !== 'dm-era') throw new Error('dm-era is not set up')
  return parseEraBlocks(await run('era_invalidate', '--written-since', String(config.last), config.metadata)).count
}

try {
  tell('booted')
  if (told.step === 'nbd') await sessionOverNbd()
  else await lab()
  tell('done')
} catch (error) {
  const { stdout = '', stderr = '', stack } = error as { stdout?: string; stderr?: string; stack?: string }
  tell('failed', { message: `${stack}\n${stdout}\n${stderr}` })
}
// Node must not wait for what still serves: the guest switches itself off.
process.exit()
