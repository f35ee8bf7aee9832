import { HELLO_DEADLINE_MS } from '../../../protocol/constants.ts'
import { MeshError } from '../../../protocol/errors.ts'
import type { RunningNode } from '../../../protocol/message-parts.ts'
import type { Message } from '../../../protocol/messages.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import { IDENTITY_LOOK_MS, IDENTITY_LOOKS, MAX_LINKS_LOOKED_AT } from './limits.ts'

type Hello = Extract<Message, { type: 'hello' }>

/** Two or more machines that run with one key. */
export interface SharedIdentity {
  /** What each says of itself. On a machine that shares its own key: the others, as a peer has told. */
  readonly machines: readonly RunningNode[]
  /** ISO 8601: when that was noticed last. */
  readonly at: string
}

interface IdentityWatchOptions {
  /** What this machine says of itself. */
  readonly self: () => RunningNode
  /** Opens an exchange stream on each connection to a peer; undefined where that cannot be had. */
  readonly openAll: (peerId: string) => Promise<readonly (FrameStream | undefined)[]>
  /** The hello of this machine, which tells a peer who else runs with its key. */
  readonly hello: (twins: readonly RunningNode[]) => Hello
  readonly nameOf: (peerId: string) => string
  readonly warn: (text: string) => void
  /** @default IDENTITY_LOOK_MS */
  readonly lookMs?: number
}

/**
 * Notices machines that run with one key: a disk was copied with the state directory. Each run of mesh has a random number of its own.
 * Of a peer with several connections each is asked for its hello. Answers with different numbers come from different runs, and both are
 * alive. A connection whose machine has lost its power does not answer. The machines concerned are told, because they cannot connect
 * to each other: each takes the other for itself.
 */
export class IdentityWatch {
  readonly #options: IdentityWatchOptions
  readonly #shared = new Map<string, SharedIdentity>()
  /** The others that run with the key of this machine, by their number. */
  readonly #twins = new Map<string, RunningNode>()
  #toldAt = ''
  readonly #timers = new Map<string, NodeJS.Timeout>()
  readonly #warned = new Set<string>()
  #stopped = false

  constructor(options: IdentityWatchOptions) {
    this.#options = options
  }

  /** A peer has so many connections now. */
  connected(peerId: string, connections: number): void {
    if (connections >= 2 && !this.#timers.has(peerId)) this.#lookSoon(peerId, IDENTITY_LOOKS)
  }

  /** A peer may have told who else runs with the key of this machine. */
  told(peerId: string, { twins = [] }: Pick<Hello, 'twins'>): void {
    const { nameOf } = this.#options
    const self = this.#options.self()
    for (const twin of twins) {
      if (twin.instance === self.instance) continue
      this.#twins.set(twin.instance, twin)
      this.#toldAt = new Date().toISOString()
      const who = `${describeNode(twin)}; this machine is ${describeNode(self)}`
      this.#warnOnce(
        `told ${twin.instance}`,
        `another machine runs with the key of this one, as ${nameOf(peerId)} says: ${who}. ${WHAT_TO_DO}`,
      )
    }
  }

  /** Somebody answers multicast DNS with the key of this machine, perhaps at others than its `own` addresses. Anybody can say so. */
  seen(addresses: readonly string[], own: readonly string[]): void {
    const others = addresses.filter((address) => !own.includes(address))
    if (others.length === 0) return
    const where = others.join(', ')
    this.#warnOnce(
      `seen ${where}`,
      `somebody at ${where} says by multicast DNS to be this machine. If another machine was made as a copy of this one: ${WHAT_TO_DO}`,
    )
  }

  /** Which machines run with the key of a peer, if there are several, as was noticed last. */
  sharedBy(peerId: string): SharedIdentity | undefined {
    return this.#shared.get(peerId)
  }

  /** Which others run with the key of this machine, if a peer has told of some. */
  get ownTwins(): SharedIdentity | undefined {
    return this.#twins.size === 0 ? undefined : { machines: [...this.#twins.values()], at: this.#toldAt }
  }

  stop(): void {
    this.#stopped = true
    for (const timer of this.#timers.values()) clearTimeout(timer)
  }

  #lookSoon(peerId: string, tries: number): void {
    const look = async (): Promise<void> => {
      const isSure = await this.#look(peerId)
      this.#timers.delete(peerId)
      if (!isSure && tries > 1 && !this.#stopped) this.#lookSoon(peerId, tries - 1)
    }
    this.#timers.set(peerId, setTimeout(() => void look(), this.#options.lookMs ?? IDENTITY_LOOK_MS).unref())
  }

  /** Returns whether there is nothing more to find out: all connections have answered, or several machines have. */
  async #look(peerId: string): Promise<boolean> {
    const { nodes, links } = await this.#ask(peerId, [])
    const found = new Map(nodes.map((node) => [node.instance, node]))
    if (found.size < 2) return nodes.length === links
    const machines = [...found.values()]
    this.#shared.set(peerId, { machines, at: new Date().toISOString() })
    const key = [...found.keys()].sort().join()
    const who = `${machines.length} machines run with the key of ${this.#options.nameOf(peerId)}`
    this.#warnOnce(`shared ${key}`, `${who}: ${machines.map(describeNode).join('; ')}. ${WHAT_TO_DO}`)
    await this.#ask(peerId, machines)
    return true
  }

  /** What answers on each connection to a peer, and how many there are. All are told of `twins`; each knows which of them it is itself. */
  async #ask(peerId: string, twins: readonly RunningNode[]): Promise<{ nodes: RunningNode[]; links: number }> {
    const streams = await this.#options.openAll(peerId).catch(() => [])
    const hello = this.#options.hello(twins)
    for (const stream of streams.slice(MAX_LINKS_LOOKED_AT)) stream?.abort(new MeshError('INTERRUPTED', 'not needed'))
    const asked = streams.slice(0, MAX_LINKS_LOOKED_AT)
    const answers = await Promise.all(asked.map((stream) => stream && runningAt(stream, hello)))
    return { nodes: answers.filter((node) => node !== undefined), links: asked.length }
  }

  #warnOnce(key: string, text: string): void {
    if (this.#warned.has(key)) return
    this.#warned.add(key)
    this.#options.warn(text)
  }
}

const WHAT_TO_DO =
  'Give the copy a key of its own: stop mesh there, and run `mesh join TOKEN --new-identity --name NAME` (handbook, “A copied machine”)'

/** `host lab-07 at /ip4/10.0.0.7/tcp/7433, disk /dev/sda3 (…)`, for people. */
export function describeNode({ host, disk, addresses }: RunningNode): string {
  const where = addresses.length === 0 ? 'no known address' : addresses.join(', ')
  return `host ${host === '' ? 'without a name' : host} at ${where}${disk === '' ? '' : `, disk ${disk}`}`
}

/** Exchanges hellos on a stream, and ends it. Undefined if nobody answers in time, or it is an earlier version. */
async function runningAt(stream: FrameStream, hello: Hello): Promise<RunningNode | undefined> {
  const late = new MeshError('REQUEST_TIMEOUT', `${stream.peerId} did not say hello`)
  const timer = setTimeout(() => stream.abort(late), HELLO_DEADLINE_MS)
  try {
    await stream.send(hello)
    const { value } = await stream.messages().next()
    if (value?.type !== 'hello' || value.running === undefined) return undefined
    return { ...value.running, addresses: value.addresses }
  } catch {
    return undefined
  } finally {
    clearTimeout(timer)
    stream.abort(new MeshError('INTERRUPTED', 'the hello is all that was wanted'))
  }
}
