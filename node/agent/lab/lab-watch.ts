/**
 * The room `lab`: what is known of all machines of the site.
 * lab-watch asks them how they are and keeps the answers (sightings). describe-lab judges each machine by its answer and its last receipt.
 */

import { isDeepStrictEqual } from 'node:util'
import type { MachineState } from '../../../protocol/operate-messages.ts'
import type { Ask } from '../../operate/ask.ts'
import type { Machine } from '../machine/machine.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { LOOK_ARRIVED_MS, LOOK_TICK_MS, SIGHTING_KEEP_MS } from './limits.ts'
import { sightingsOf } from './sightings.ts'

interface LabWatchOptions {
  readonly machine: Machine
  readonly node: Pick<MeshNode, 'connectedMembers'>
  readonly ask: Ask
  readonly warn: (text: string) => void
}

/** Asks the machines that are on how they are, now and then, and keeps what they say for the time when they are off. */
export class LabWatch {
  readonly #options: LabWatchOptions
  /** What was kept last of each machine, and when, of performance.now. */
  readonly #kept = new Map<string, { readonly state: MachineState; readonly at: number }>()
  readonly #arrived = new Set<string>()
  #timers: NodeJS.Timeout[] = []
  #round: Promise<void> = Promise.resolve()

  constructor(options: LabWatchOptions) {
    this.#options = options
  }

  start(): void {
    const all = setInterval(() => this.#look(this.#options.node.connectedMembers().map(({ id }) => id)), LOOK_TICK_MS)
    const arrived = setInterval(() => {
      const ids = [...this.#arrived]
      this.#arrived.clear()
      this.#look(ids)
    }, LOOK_ARRIVED_MS)
    this.#timers = [all, arrived]
  }

  /** A machine was connected. */
  noticed(id: string): void {
    if (this.#timers.length > 0) this.#arrived.add(id)
  }

  async stop(): Promise<void> {
    for (const timer of this.#timers.splice(0)) clearInterval(timer)
    await this.#round
  }

  #look(ids: readonly string[]): void {
    if (ids.length === 0) return
    const round = this.#round.then(() => this.#lookAt(ids))
    this.#round = round.catch((error: Error) =>
      this.#options.warn(`what the machines say of themselves cannot be kept: ${error.message}`),
    )
  }

  async #lookAt(ids: readonly string[]): Promise<void> {
    const { machine, ask } = this.#options
    const answers = await ask(ids, { op: 'state' })
    const shelf = sightingsOf(machine.home)
    const now = performance.now()
    for (const answer of answers) {
      if (!('reply' in answer)) continue
      const { id, reply: state } = answer
      const before = this.#kept.get(id)
      if (before !== undefined && now - before.at < SIGHTING_KEEP_MS && isDeepStrictEqual(before.state, state)) continue
      await shelf.put(id, { at: new Date().toISOString(), state })
      this.#kept.set(id, { state, at: now })
    }
    const members = new Set(machine.trust.view().members.map(({ id }) => id))
    for (const id of await shelf.keys()) if (!members.has(id)) await shelf.del(id)
  }
}
