import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { MEMBER_DIALS_BURST, MEMBER_DIALS_PER_MINUTE } from '../../node/agent/mesh/limits.ts'
import { toHex } from '../../protocol/digest.ts'
import { decodeJoinToken } from '../../protocol/join-token.ts'
import type { MeshProcess } from '../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../tools/lab/node-flags.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { whyNoNetwork } from '../../tools/netlab/network.ts'
import { BLOCK } from '../support/fixtures.ts'
import { Lan } from '../support/lan.ts'
import type { LocalTrial } from './local.ts'
import { residentMib } from './resident.ts'

const ATTACK = 'multicast DNS: a stranger forges 500 answers a second'
const BLOCKS = 512
const MACHINES = ['boss', 'pc1', 'bad'] as const
const LISTEN = ['--listen', '/ip4/0.0.0.0/tcp/7433']
const FORGER = join(import.meta.dirname, 'mdns-forger.ts')
/** As of members: so many times as long as without, and so many milliseconds more; MiB. */
const MOST_TIMES = 1.5
const MOST_MS_MORE = 3_000
const MOST_GROWTH_MIB = 64

/** A restore in a room where somebody who is no member forges multicast DNS, in network namespaces; nothing if `words` are not in its name. */
export async function tryMulticast(words: string, random: Random): Promise<LocalTrial[]> {
  if (!ATTACK.includes(words)) return []
  const why = await whyNoNetwork()
  if (why !== undefined) {
    process.stderr.write(`SKIPPED ${ATTACK}: ${why}\n`)
    return []
  }
  const dir = await mkdtemp(join(tmpdir(), 'mesh-multicast-'))
  const lan = new Lan(`mesh-h${process.pid}-`)
  try {
    await lan.open()
    return [await tryForged(lan, dir, random)]
  } finally {
    await lan.close()
    await rm(dir, { recursive: true, force: true })
  }
}

async function tryForged(lan: Lan, dir: string, random: Random): Promise<LocalTrial> {
  const { boss, tag, ids, restore } = await setUp(lan, dir, random)
  const without = await restore()
  const { pid } = boss.child
  const beforeMib = await residentMib(pid)
  const [program = '', ...through] = lan.through('bad')
  const forger = spawn(program, [...through, process.execPath, ...NODE_FLAGS, FORGER, tag, ...ids], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let peakMib = beforeMib
  const watch = setInterval(() => {
    void residentMib(pid).then((mib) => {
      peakMib = Math.max(peakMib, mib)
    })
  }, 100)
  try {
    await new Promise((resolve) => forger.stdout.once('data', resolve))
    const begun = performance.now()
    const attacked = await restore()
    // The machine is off now: who knows it dials it.
    await sleep(5_000)
    const minutes = (performance.now() - begun) / 60_000
    const dialled = await refusedConnections(lan)
    const most = MACHINES.length * (MEMBER_DIALS_BURST + MEMBER_DIALS_PER_MINUTE * minutes)
    const isFast = attacked.ms <= without.ms * MOST_TIMES + MOST_MS_MORE
    const held = attacked.verified && isFast && dialled <= most && peakMib - beforeMib <= MOST_GROWTH_MIB
    return { attack: ATTACK, beforeMib, peakMib, restedMib: await residentMib(pid), servedMs: attacked.ms, held }
  } finally {
    clearInterval(watch)
    forger.kill('SIGKILL')
  }
}

interface Room {
  readonly boss: MeshProcess
  /** Of the multicast service of the site. */
  readonly tag: string
  readonly ids: readonly string[]
  /** Restores the whole disk of the lab machine. */
  readonly restore: () => Promise<{ readonly ms: number; readonly verified: boolean }>
}

async function setUp(lan: Lan, dir: string, random: Random): Promise<Room> {
  for (const [i, name] of MACHINES.entries()) {
    await lan.addMachine(name)
    await lan.cable(name, `10.66.0.${i + 1}/24`)
  }
  const image = Buffer.from(random.bytes(BLOCKS * BLOCK))
  const [model, disk] = [join(dir, 'model.img'), join(dir, 'pc1.img')]
  const state = (name: string): string[] => ['--state', join(dir, name)]
  await writeFile(model, image)
  await writeFile(disk, random.bytes(image.byteLength))
  const boss = lan.mesh(
    'boss',
    'seed',
    model,
    '--image',
    'model',
    ...LISTEN,
    '--max-upload',
    '100Mbit',
    ...state('boss'),
  )
  await boss.event('serving')
  const token = String((await lan.mesh('boss', 'invite', ...state('boss')).exited).result?.token)
  await lan.mesh('pc1', 'join', token, '--disk', disk, '--name', 'pc1', ...state('pc1')).exited
  const { result } = await lan.mesh('pc1', 'status', ...state('pc1')).exited
  const { siteId, peerId } = decodeJoinToken(token)
  const restore: Room['restore'] = async () => {
    await writeFile(disk, random.bytes(image.byteLength))
    await rm(join(dir, 'pc1', 'stage'), { recursive: true, force: true })
    const at = performance.now()
    const { code } = await lan.mesh('pc1', 'restore', ...LISTEN, ...state('pc1')).exited
    return { ms: performance.now() - at, verified: code === 0 && (await readFile(disk)).equals(image) }
  }
  return { boss, tag: `mesh-${toHex(siteId).slice(0, 8)}.local`, ids: [peerId, String(result?.id)], restore }
}

/** Connections to closed ports of the forger, each of which was answered by a reset (proc_pid_net(5), snmp). */
async function refusedConnections(lan: Lan): Promise<number> {
  const text = await runTool('ip', ['netns', 'exec', lan.space('bad'), 'cat', '/proc/net/snmp'])
  const [names = '', values = ''] = text.split('\n').filter((line) => line.startsWith('Tcp:'))
  return Number(values.split(' ')[names.split(' ').indexOf('OutRsts')])
}
