import type { MachineConfig } from '../../state/machine-config.ts'
/**
 * The room `machine`: what every command of this machine works with, whatever it does.
 * `Machine` is the enrolled machine: its state directory, its key, the signed list and the releases that it trusts. Beside it stand
 * what the user may say (options), what is remembered of that (settings), what a command tells while it runs (events), what the
 * disk is known to hold (disk-state), the hooks, and the part that a room adds to a running command (service-part). hold-state takes the
 * state directory, or reads it beside whoever has it: that command answers at its `Desk` what it is at (work) and what it holds (held-values).
 * This room imports no other room.
 */

import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import { loadOrCreateMachineKey, type MachineKey } from '../../trust/machine-key.ts'
import { mayOperate } from '../../trust/members.ts'
import { TrustStore } from '../../trust/trust-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { Desk } from './desk.ts'
import type { AgentEvent } from './events.ts'
import { holdState, readState } from './hold-state.ts'
import type { AgentOptions, ConfiguredMachine } from './options.ts'
import type { ServicePart } from './service-part.ts'
import { describeWork, type Work } from './work.ts'

/** What {@link Machine.open} and {@link Machine.from} take of a command's options. */
export type OpenOptions = {
  readonly [Key in 'command' | 'report' | 'configured']?: AgentOptions[Key] | undefined
} & {
  /** The command will answer more before long, until it calls {@link Machine.opened}. @default false */
  readonly opening?: boolean
}

/** One enrolled machine: its state directory, its key, what it trusts, and what it was told to be. */
export class Machine {
  readonly state: StateDirectory
  /** Key, trust, hash trees, receipts and addresses are here: the same directory, but for a further partition of a machine. */
  readonly home: StateDirectory
  readonly trust: TrustStore
  /** What the command is at that holds the state directory; undefined if this process holds it, or nobody was asked. */
  readonly holder: Work | undefined
  #desks: readonly Desk[] = []
  #said: ConfiguredMachine

  private constructor(
    { state, home }: { readonly state: StateDirectory; readonly home: StateDirectory },
    trust: TrustStore,
    said: ConfiguredMachine,
    holder?: Work,
  ) {
    this.state = state
    this.home = home
    this.trust = trust
    this.holder = holder
    this.#said = said
  }

  /**
   * Opens the state directory of a machine that has joined (or of the master), and holds it; other commands are answered from then
   * on. What is `configured` goes before what the state directory says, and is not saved. `orCopy`: see {@link StateDirectory.open}.
   * Errors: STATE_MISSING, STATE_IN_USE, FORMAT_NEWER, STATE_CORRUPT, STATE_UNWRITABLE.
   */
  static async open(stateDir: string, options: OpenOptions & { readonly orCopy?: boolean } = {}): Promise<Machine> {
    const { command, orCopy } = options
    const hold = (path: string): Promise<StateDirectory> => holdState(path, { create: false, command, orCopy })
    const state = await hold(stateDir)
    return closingOnFault(state, () => Machine.#opened(state, options, hold))
  }

  /** Opens the state directory to look at its files, whoever holds it. Shelves cannot be read. Errors: as {@link open}, but for STATE_IN_USE. */
  static async look(stateDir: string, configured: ConfiguredMachine = {}): Promise<Machine> {
    const look = (path: string): Promise<StateDirectory> => StateDirectory.open(path, { create: false, readOnly: true })
    return Machine.#load(await look(stateDir), configured, look)
  }

  /** Opens the state directory to read all of it: by itself if it is free, else through the command that holds it. Errors: as {@link open}. */
  static async read(stateDir: string, configured: ConfiguredMachine = {}): Promise<Machine> {
    const { state, holder } = await readState(stateDir)
    const read = async (path: string): Promise<StateDirectory> => (await readState(path)).state
    return closingOnFault(state, () => Machine.#load(state, configured, read, holder))
  }

  /** The machine of a state directory that this process holds; other commands are answered from now on. */
  static from(state: StateDirectory, options: OpenOptions = {}): Promise<Machine> {
    return Machine.#opened(state, options, (path) => holdState(path, { create: false, command: options.command }))
  }

  static async #opened(state: StateDirectory, options: OpenOptions, open: OpenState): Promise<Machine> {
    const machine = await Machine.#load(state, options.configured, open)
    const { command, opening, report = () => undefined } = options
    const desks = [...new Set([state, machine.home])].map((it) => Desk.open({ state: it, command, opening, report }))
    machine.#desks = await Promise.all(desks)
    return machine
  }

  static async #load(
    state: StateDirectory,
    said: ConfiguredMachine = {},
    open: OpenState,
    holder?: Work,
  ): Promise<Machine> {
    const config = state.machine
    if (config === undefined) {
      const why = holder === undefined ? '' : `; it is in use by ${describeWork(holder)}`
      throw new MeshError('STATE_MISSING', `${state.directory} belongs to no machine yet${why}`)
    }
    const home = config.partOf === undefined ? state : await open(state.path(config.partOf))
    try {
      const trust = await TrustStore.open(home.path('trust'), { signs: config.role === 'master' })
      if (toHex(trust.siteId) !== config.siteId) {
        throw new MeshError(
          'STATE_CORRUPT',
          `${state.directory}: the trusted metadata is of another site than machine.json`,
        )
      }
      return new Machine({ state, home }, trust, said, holder)
    } catch (error) {
      if (home !== state) await home.close()
      throw error
    }
  }

  /** What the machine was told to be. Who it is, and what it may give, is said by its own state directory alone. */
  get config(): MachineConfig {
    const own = this.state.machine as MachineConfig
    const { id, name, listen, serving, reset } = this.home.machine ?? own
    const who = {
      id,
      name,
      listen,
      ...(serving === undefined ? {} : { serving }),
      ...(reset === undefined ? {} : { reset }),
    }
    return { ...own, ...who, ...this.#said }
  }

  /** From now on this is the path of the managed disk, until the machine is closed. */
  useDisk(path: string): void {
    this.#said = { ...this.#said, disk: path }
  }

  key(): Promise<MachineKey> {
    return loadOrCreateMachineKey(this.home.path('identity.pem'))
  }

  /**
   * The release this machine is to have: the newest one it trusts of `image` (default: the machine's own image), or
   * the one asked for. Errors: IMAGE_UNKNOWN.
   */
  manifest(image: string | undefined = this.config.image, release?: number): VerifiedManifest {
    const view = this.trust.view()
    const known = view.images.length === 0 ? 'it publishes none yet' : `it publishes ${view.images.join(', ')}`
    if (image === undefined)
      throw new MeshError('IMAGE_UNKNOWN', `no image is chosen for this machine; site ${this.config.site}: ${known}`)
    const manifest = release === undefined ? view.newest(image) : view.release(image, release)
    if (manifest === undefined) {
      const what = release === undefined ? `image ${image}` : `release ${release} of image ${image}`
      throw new MeshError('IMAGE_UNKNOWN', `site ${this.config.site} has no ${what}; ${known}`)
    }
    return manifest
  }

  /** Path of the managed disk. Errors: STATE_MISSING. */
  get diskPath(): string {
    if (this.config.disk === undefined) throw new MeshError('STATE_MISSING', 'no disk is set for this machine')
    return this.config.disk
  }

  /** The member's name in the signed list, or the peer id itself if it is no member. */
  nameOf(peerId: string): string {
    return this.trust.view().memberById(peerId)?.name ?? peerId
  }

  /** Whether a peer is in the signed list. */
  isMember(peerId: string): boolean {
    return this.trust.view().memberById(peerId) !== undefined
  }

  /** Whether the signed list says that a peer was a member, and was removed. */
  isRemoved(peerId: string): boolean {
    return this.trust.view().removed.some(({ id }) => id === peerId)
  }

  /** Whether this machine itself is in the signed list no longer; then also when it was taken out, ISO 8601, if the list says that. */
  get removed(): { readonly at?: string } | undefined {
    const { id } = this.config
    if (this.isMember(id)) return undefined
    const at = this.trust.view().removed.find((one) => one.id === id)?.at
    return at === undefined ? {} : { at }
  }

  /** Errors: MEMBER_REMOVED if this machine was taken out of the site, as far as it has heard of that. */
  assertMember(): void {
    const { removed } = this
    if (removed === undefined) return
    const { name, site } = this.config
    const when = removed.at === undefined ? '' : ` at ${formatTime(removed.at)}`
    throw new MeshError('MEMBER_REMOVED', `${name} was removed from site ${site}${when}: no other machine serves it`)
  }

  /** Whether a peer is the master or an operator, as the signed list says now. */
  isOperator(peerId: string): boolean {
    return mayOperate(this.trust.view().memberById(peerId))
  }

  /** From now on other commands are answered this, too, until the result is called. */
  answer(part: Pick<ServicePart, 'methods'>): () => void {
    const stops = this.#desks.map((desk) => desk.answer(part))
    return () => {
      for (const stop of stops) stop()
    }
  }

  /** Other commands are answered all that this one will answer. */
  opened(): void {
    for (const desk of this.#desks) desk.opened()
  }

  /** Tells events on, and notes what they say of the work: other commands ask how far it is. */
  telling(report: (event: AgentEvent) => void): (event: AgentEvent) => void {
    return (event) => {
      for (const desk of this.#desks) desk.note(event)
      report(event)
    }
  }

  /** Gives the state directory back to other commands. */
  async close(): Promise<void> {
    // Whoever holds the directory next opens its own socket.
    await Promise.all(this.#desks.map((desk) => desk.close()))
    await this.state.close()
    if (this.home !== this.state) await this.home.close()
  }
}

/** Opens the state directory of the machine that a further partition belongs to, as that of the partition was opened. */
type OpenState = (path: string) => Promise<StateDirectory>

async function closingOnFault<T>(state: StateDirectory, open: () => Promise<T>): Promise<T> {
  try {
    return await open()
  } catch (error) {
    await state.close()
    throw error
  }
}
