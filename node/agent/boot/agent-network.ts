import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isMeshError } from '../../../protocol/errors.ts'
import type { AgentEvent } from '../machine/events.ts'
import { runBootTool } from './boot-tool.ts'
import { LEASE_TICK_MS, LEASE_WAIT_MS } from './limits.ts'

/** What an {@link AgentNetwork} works with. */
interface AgentNetworkOptions {
  /** Program that loads drivers, brings links up, and asks for addresses until it is ended. */
  readonly script: string
  /** Folder with the leases of the last time, `lease-MAC`. */
  readonly leases: string
  readonly report: (event: AgentEvent) => void
}

/**
 * The network of a machine that has no system yet. It is brought up when it is needed first, which on a clean disk is never. A lab
 * whose DHCP server is off goes by the leases of the last time; a card that never had one takes a link-local address (RFC 3927).
 */
export class AgentNetwork {
  readonly #options: AgentNetworkOptions
  #script: ChildProcess | undefined
  #up: Promise<void> | undefined

  constructor(options: AgentNetworkOptions) {
    this.#options = options
  }

  /** Returns when a card has an address, or can have none. */
  async bringUp(): Promise<void> {
    this.#up ??= this.#start()
    return this.#up
  }

  /** Leaves the cards as the system wants to find them: without address and link. */
  async end(): Promise<void> {
    const script = this.#script
    if (script?.pid === undefined) return
    this.#script = undefined
    this.#up = undefined
    try {
      process.kill(-script.pid, 'SIGTERM')
    } catch {
      // It has ended by itself.
    }
    for (const { name } of await cards()) {
      await runBootTool('ip', ['addr', 'flush', 'dev', name]).catch(() => undefined)
      await runBootTool('ip', ['link', 'set', name, 'down']).catch(() => undefined)
    }
  }

  async #start(): Promise<void> {
    // A group of its own, so that it ends with what it has started.
    this.#script = spawn(this.#options.script, { stdio: 'ignore', detached: true })
    this.#script.on('error', () => undefined)
    const until = performance.now() + LEASE_WAIT_MS
    while (performance.now() < until) {
      if (hasAddress()) return
      await sleep(LEASE_TICK_MS)
    }
    for (const card of await cards()) await this.#withoutServer(card)
  }

  async #withoutServer({ name, mac }: Card): Promise<void> {
    const lease = await readFile(join(this.#options.leases, `lease-${mac.replaceAll(':', '')}`), 'utf8').catch(() => '')
    const { address, gateway } = readLease(lease) ?? { address: linkLocalAddress(mac), gateway: undefined }
    const how = lease === '' ? 'takes the link-local address' : 'takes the address of the last time,'
    this.#options.report({ type: 'note', text: `no DHCP server answers on ${name}, which ${how} ${address}` })
    await giveAddress(name, { address, gateway }, this.#options.report)
  }
}

/**
 * Gives a card an address, `ADDRESS/BITS`, and a way out behind those that there are. One that the card has already is no failure; another
 * failure is told as a warning, and the machine goes on with what it has.
 */
export async function giveAddress(
  card: string,
  { address, gateway }: { readonly address: string; readonly gateway: string | undefined },
  report: (event: AgentEvent) => void,
): Promise<void> {
  try {
    await runBootTool('ip', ['addr', 'replace', address, 'dev', card])
    if (gateway !== undefined) await runBootTool('ip', ['route', 'append', 'default', 'via', gateway, 'dev', card])
  } catch (error) {
    if (!isMeshError(error)) throw error
    report({ type: 'warning', text: `${card} does not get ${address}: ${error.message}` })
  }
}

interface Card {
  readonly name: string
  readonly mac: string
}

/** Network cards, which unlike bridges and the loopback interface belong to a device. */
async function cards(): Promise<Card[]> {
  const places = '/sys/class/net'
  const found: Card[] = []
  for (const name of await readdir(places).catch(() => []))
    if (existsSync(join(places, name, 'device')))
      found.push({ name, mac: (await readFile(join(places, name, 'address'), 'utf8')).trim() })
  return found
}

function hasAddress(): boolean {
  return Object.values(networkInterfaces()).some((all) => all?.some((one) => !one.internal && one.family === 'IPv4'))
}

/** `ADDRESS/BITS GATEWAY`, as the agent’s script keeps it; undefined if it is none. The gateway may be missing. */
export function readLease(
  text: string,
): { readonly address: string; readonly gateway: string | undefined } | undefined {
  const [, address, gateway] = /^((?:\d{1,3}\.){3}\d{1,3}\/\d{1,2})(?: ((?:\d{1,3}\.){3}\d{1,3}))?\s*$/.exec(text) ?? []
  return address === undefined ? undefined : { address, gateway }
}

/** An address of 169.254.1.0 to 169.254.254.255 that follows from the card’s own, so that it is the same each time. */
export function linkLocalAddress(mac: string): string {
  const bytes = mac.split(':').map((part) => Number.parseInt(part, 16))
  return `169.254.${1 + ((bytes.at(-2) ?? 0) % 254)}.${bytes.at(-1) ?? 0}/16`
}
