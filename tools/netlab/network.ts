import { readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { readJson } from '../../protocol/document.ts'
import { MeshError } from '../../protocol/errors.ts'
import { list, natural, object, text } from '../../protocol/json-shape.ts'
import { hasTool, PACKAGES, runTool } from '../lab/run-tool.ts'

/**
 * Beginning of the names of namespaces and directories: `meshlab-PID-…`. The next run finds by it what a dead run has
 * left.
 */
const PREFIX = 'meshlab-'
/** Name of the router, which has an address on either side. */
export const HUB = 'hub'
const ROUTER_LAN = '10.83.0.254'
const ROUTER_UPLINK = '10.84.0.1'
/**
 * What a port sends ahead or keeps waiting, about as a cheap switch does: these bytes, or the bytes of 2 ms if those
 * are more. With less than a segment of 64 KiB the kernel would cut each segment into packets here, which a network
 * card does elsewhere. That costs as much processor time as all the rest.
 */
const BURST_BYTES = 128 * 1024
const BURST_SECONDS = 0.002
const QUEUE = '50ms'
const GONE_MS = 5_000

/** Where a machine stands: on the LAN, or behind the uplink. */
export type Side = 'lan' | 'uplink'

/** What crossed the port of one machine. */
export interface Traffic {
  /** Bytes that the machine sent, and that reached it, Ethernet headers included. */
  readonly sent: number
  readonly received: number
}

interface Port {
  readonly namespace: string
  readonly side: Side
}

/** What `ip -s -j link` tells of each link, as far as it is used here. */
const isBytes = object({ bytes: natural() })
const isLinks = list(object({ ifname: text(MAX_TEXT_BYTES), stats64: object({ rx: isBytes, tx: isBytes }) }), 65_536)

/**
 * A switch with machines on it. Each machine is in a network namespace of its own, cabled to a bridge in another
 * namespace. Machines behind the uplink are reached through a router, so multicast does not reach them. Nothing of the
 * network can be seen from outside.
 */
export class Network {
  /** Name of a run's namespaces and directory, without the machine. */
  readonly prefix = `${PREFIX}${process.pid}-`
  readonly #ports = new Map<string, Port>()
  readonly #signal: AbortSignal

  private constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  /** Errors: USAGE where namespaces cannot be made. */
  static async open(signal: AbortSignal): Promise<Network> {
    const why = await whyNoNetwork()
    if (why !== undefined) throw new MeshError('USAGE', why)
    await removeLeftovers()
    const network = new Network(signal)
    try {
      await network.#makeHub()
      return network
    } catch (error) {
      await network.close()
      throw error
    }
  }

  async #makeHub(): Promise<void> {
    const hub = this.namespace(HUB)
    await this.#ip(['netns', 'add', hub])
    await this.#ip(['-n', hub, 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0'])
    await this.#ip(['-n', hub, 'addr', 'add', `${ROUTER_LAN}/24`, 'dev', 'br0'])
    await this.#ip(['-n', hub, 'link', 'set', 'br0', 'up'])
    await this.forward(true)
  }

  namespace(machine: string): string {
    return `${this.prefix}${machine}`
  }

  /**
   * Cables a machine in and returns its address, of which `number` (1 to 253) is a part. The port is not shaped yet.
   */
  async attach(machine: string, number: number, side: Side): Promise<string> {
    const [hub, namespace] = [this.namespace(HUB), this.namespace(machine)]
    await this.#ip(['netns', 'add', namespace])
    this.#ports.set(machine, { namespace, side })
    await this.#ip(['-n', namespace, 'link', 'set', 'lo', 'up'])
    await this.#ip(['-n', namespace, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', machine, 'netns', hub])
    if (side === 'lan') await this.#ip(['-n', hub, 'link', 'set', 'dev', machine, 'master', 'br0', 'up'])
    else {
      await this.#ip(['-n', hub, 'addr', 'add', `${ROUTER_UPLINK}/24`, 'dev', machine])
      await this.#ip(['-n', hub, 'link', 'set', 'dev', machine, 'up'])
    }
    const [subnet, router] = side === 'lan' ? ['10.83.0', ROUTER_LAN] : ['10.84.0', ROUTER_UPLINK]
    const address = `${subnet}.${side === 'lan' ? number : number + 1}`
    await this.#ip(['-n', namespace, 'addr', 'add', `${address}/24`, 'dev', 'eth0'])
    await this.#ip(['-n', namespace, 'link', 'set', 'eth0', 'up'])
    await this.#ip(['-n', namespace, 'route', 'add', 'default', 'via', router])
    return address
  }

  /** Lets the LAN and the other side of the uplink reach each other, or not. Both reach the router in any case. */
  async forward(on: boolean): Promise<void> {
    const setting = `echo ${on ? 1 : 0} > /proc/sys/net/ipv4/ip_forward`
    await this.#ip(['netns', 'exec', this.namespace(HUB), 'sh', '-c', setting])
  }

  /** Limits each port to so many bits per second in each direction; undefined: no limit. */
  async shape(rates: Readonly<Record<Side, number | undefined>>): Promise<void> {
    for (const [machine, { namespace, side }] of this.#ports) {
      const rate = rates[side]
      if (rate === undefined) continue
      const burst = Math.round(Math.max(BURST_BYTES, (rate / 8) * BURST_SECONDS))
      const shaper = ['root', 'tbf', 'rate', `${rate}bit`, 'burst', String(burst), 'latency', QUEUE]
      await this.#run('tc', ['-n', namespace, 'qdisc', 'replace', 'dev', 'eth0', ...shaper])
      await this.#run('tc', ['-n', this.namespace(HUB), 'qdisc', 'replace', 'dev', machine, ...shaper])
    }
  }

  /** What has crossed each machine's port so far. */
  async traffic(): Promise<Map<string, Traffic>> {
    const links = readJson('what ip says', isLinks, await this.#ip(['-n', this.namespace(HUB), '-s', '-j', 'link']))
    return new Map(
      links
        .filter(({ ifname }) => this.#ports.has(ifname))
        .map(({ ifname, stats64: { rx, tx } }) => [ifname, { sent: rx.bytes, received: tx.bytes }]),
    )
  }

  async close(): Promise<void> {
    await removeNamespaces(this.prefix)
  }

  #ip(args: readonly string[]): Promise<string> {
    return this.#run('ip', args)
  }

  /** Runs a command. It is not ended when the run is aborted, so that it leaves nothing half made. */
  async #run(tool: string, args: readonly string[]): Promise<string> {
    this.#signal.throwIfAborted()
    return runTool(tool, args)
  }
}

/** Why a network cannot be made on this machine; undefined if it can. */
export async function whyNoNetwork(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'the lab needs network namespaces, which need root'
  for (const tool of ['ip', 'tc', 'setpriv'])
    if (!(await hasTool(tool))) return `the program ${tool} is missing: install the package ${PACKAGES[tool]}`
  const trial = `${PREFIX}${process.pid}-trial`
  try {
    await runTool('ip', ['netns', 'add', trial])
    await runTool('ip', ['-n', trial, 'link', 'add', 'br0', 'type', 'bridge'])
    await runTool('ip', ['-n', trial, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth1'])
    await runTool('tc', [
      '-n',
      trial,
      'qdisc',
      'add',
      'dev',
      'eth0',
      'root',
      'tbf',
      'rate',
      '1mbit',
      'burst',
      '64kb',
      'latency',
      QUEUE,
    ])
    return undefined
  } catch (error) {
    const [, reason = String(error)] = String(error).trim().split('\n')
    return `network namespaces, bridges or shaping do not work on this machine: ${reason}`
  } finally {
    await runTool('ip', ['netns', 'del', trial]).catch(() => undefined)
  }
}

/** Removes what killed runs have left: their processes, namespaces and directories. */
async function removeLeftovers(): Promise<void> {
  const names = [...(await namespaces()), ...(await readdir(tmpdir()))]
  const dead = new Set<number>()
  for (const name of names) {
    const pid = Number(/^meshlab-(\d+)-/.exec(name)?.[1] ?? Number.NaN)
    if (!Number.isNaN(pid) && !(await exists(`/proc/${pid}`))) dead.add(pid)
  }
  for (const pid of dead) {
    const prefix = `${PREFIX}${pid}-`
    await removeNamespaces(prefix)
    for (const name of names.filter((it) => it.startsWith(prefix)))
      await rm(join(tmpdir(), name), { recursive: true, force: true })
  }
}

async function namespaces(): Promise<string[]> {
  const listed = await runTool('ip', ['netns', 'list'])
  return listed.split('\n').flatMap((line) => line.split(' ')[0] || [])
}

/** Ends every process in the namespaces of one run, and removes the namespaces. */
async function removeNamespaces(prefix: string): Promise<void> {
  for (const name of (await namespaces()).filter((it) => it.startsWith(prefix))) {
    // A namespace that was never mounted cannot be asked, and lists nobody.
    const pids = await runTool('ip', ['netns', 'pids', name]).catch(() => '')
    await Promise.all(
      pids
        .split('\n')
        .filter(Boolean)
        .map((pid) => end(Number(pid))),
    )
    await runTool('ip', ['netns', 'del', name]).catch(() => undefined)
  }
}

async function end(pid: number): Promise<void> {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    return
  }
  for (const deadline = Date.now() + GONE_MS; Date.now() < deadline && (await exists(`/proc/${pid}`)); ) await sleep(10)
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
