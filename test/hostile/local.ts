import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { callControl } from '../../node/control/control-client.ts'
import { NbdClient } from '../../node/nbd/nbd-client.ts'
import { COMMAND, OPTION } from '../../node/nbd/nbd-protocol.ts'
import { isRecord } from '../../protocol/json-shape.ts'
import { formatTable } from '../../tools/cli/format.ts'
import type { Lab, MeshProcess } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { joinMachine, startMaster } from '../support/fixtures.ts'
import { goData, optionBytes, requestBytes, u32 } from '../support/raw-nbd.ts'
import { residentMib } from './resident.ts'

const MIB = 1024 ** 2
/** How long an attack goes on, and after how long without it memory is looked at again. */
const ATTACK_MS = 20_000
const REST_MS = 30_000
/** An honest program may wait so long for its answer while the attack goes on. */
const PATIENCE_MS = 25_000
const MOST_GROWTH_MIB = 64

type Victim = 'monitor' | 'up'

interface LocalAttack {
  readonly on: Victim
  readonly connections: number
  /** What each connection sends, again and again as long as it is taken. It reads nothing. */
  readonly send: Buffer
}

const greeting = Buffer.concat([u32(3), optionBytes(OPTION.structuredReply, Buffer.alloc(0))])
const ready = Buffer.concat([greeting, optionBytes(OPTION.go, goData(''))])
const reads = (count: number, length: number): Buffer =>
  Buffer.concat(Array.from({ length: count }, () => requestBytes({ command: COMMAND.read, length })))

/** What local programs try that may open the sockets of mesh: a broken one, or one of the same user. */
const LOCAL_ATTACKS: Readonly<Record<string, LocalAttack>> = {
  'nbd: 16 clients ask and never read': {
    on: 'monitor',
    connections: 16,
    send: Buffer.concat([ready, reads(64, MIB)]),
  },
  'nbd: 60 clients ask for 32 MiB and never read': {
    on: 'monitor',
    connections: 60,
    send: Buffer.concat([ready, reads(4, 32 * MIB)]),
  },
  'nbd: 64 clients that ask nothing': { on: 'monitor', connections: 64, send: ready },
  'nbd: 300 connections that say nothing': { on: 'monitor', connections: 300, send: Buffer.alloc(0) },
  'nbd: options without end': {
    on: 'monitor',
    connections: 60,
    send: Buffer.concat([u32(3), ...Array(64).fill(optionBytes(OPTION.info, Buffer.alloc(60_000)))]),
  },
  'control: 500 connections with half a request': {
    on: 'up',
    connections: 500,
    send: Buffer.from(`{"method":"${'x'.repeat(4_000_000)}`),
  },
  'control: 300 callers that take no answer': {
    on: 'up',
    connections: 300,
    send: Buffer.from('{"method":"values","params":{"shelf":"receipts"}}\n'),
  },
}

/** What became of a process, and of an honest program that needed it. Memory in MiB. */
export interface LocalTrial {
  readonly attack: string
  readonly beforeMib: number
  readonly peakMib: number
  readonly restedMib: number
  /** How long an honest program waited for its answer, at most; undefined if it got none. */
  readonly servedMs: number | undefined
  /** Whether that is within bounds. */
  readonly held: boolean
}

/** Tries the local attacks whose names hold `words`. */
export async function tryLocally(lab: Lab, words: string, random: Random): Promise<LocalTrial[]> {
  const names = Object.keys(LOCAL_ATTACKS).filter((name) => name.includes(words))
  if (names.length === 0) return []
  const image = await startMaster(lab, 1024, random)
  await joinMachine(lab, 'pc1', image, await lab.invite('master'))
  await lab.ok('pc1', ['restore'])
  const socket = lab.path('nbd.sock')
  const monitor = await lab.start('pc1', ['monitor', lab.path('pc1.img'), '--nbd', `unix:${socket}`])
  await monitor.event('monitoring')
  const up = await lab.serve('pc1', ['up'])
  const victims = { monitor, up }
  const places = { monitor: socket, up: lab.path('pc1', 'control.sock') }
  const trials: LocalTrial[] = []
  for (const name of names) {
    const { on } = LOCAL_ATTACKS[name]!
    trials.push(await tryOne(name, victims[on], places[on], lab.path('pc1')))
  }
  return trials
}

/** The trials as a table for people. */
export function localTable(trials: readonly LocalTrial[]): string {
  return formatTable([HEAD, ...trials.map(cells)])
}

async function tryOne(attack: string, victim: MeshProcess, path: string, stateDir: string): Promise<LocalTrial> {
  const { on, connections, send } = LOCAL_ATTACKS[attack]!
  const pid = victim.child.pid
  const beforeMib = await residentMib(pid)
  const sockets = Array.from({ length: connections }, () => open(path, send))
  let peakMib = 0
  const end = performance.now() + ATTACK_MS
  await sleep(1_000)
  const serving = served(on, path, stateDir)
  while (performance.now() < end) {
    peakMib = Math.max(peakMib, await residentMib(pid))
    await sleep(50)
  }
  const servedMs = await serving
  for (const socket of sockets) socket.destroy()
  await sleep(REST_MS)
  const restedMib = await residentMib(pid)
  const held = servedMs !== undefined && Math.max(peakMib, restedMib) - beforeMib <= MOST_GROWTH_MIB
  return { attack, beforeMib, peakMib, restedMib, servedMs, held }
}

function open(path: string, send: Buffer): Socket {
  const socket = connect(path)
  socket.on('error', () => undefined)
  socket.pause().write(send)
  return socket
}

/** What an honest program waits for: a large read, or an answer. */
async function served(on: Victim, path: string, stateDir: string): Promise<number | undefined> {
  const at = performance.now()
  const asked = on === 'monitor' ? readByNbd(path) : callControl(stateDir, 'work', isRecord)
  const isServed = await Promise.race([asked.then(() => true), sleep(PATIENCE_MS, false, { ref: false })]).catch(
    () => false,
  )
  return isServed ? performance.now() - at : undefined
}

async function readByNbd(path: string): Promise<void> {
  const client = await NbdClient.connect(`nbd+unix:///?socket=${path}`)
  await client.read(0, new Uint8Array(8 * MIB))
  await client.close()
}

const HEAD = ['local attack', 'before', 'peak', 'after 30 s', 'honest program', 'result']

function cells(trial: LocalTrial): string[] {
  const mib = (value: number): string => `${value.toFixed(0)} MiB`
  return [
    trial.attack,
    mib(trial.beforeMib),
    mib(trial.peakMib),
    mib(trial.restedMib),
    trial.servedMs === undefined ? 'not served' : `${(trial.servedMs / 1000).toFixed(1)} s`,
    trial.held ? 'ok' : 'FAILED',
  ]
}
