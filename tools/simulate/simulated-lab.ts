import type { Bitmap } from '../../protocol/bitmap.ts'
import { FETCH_TICK_MS } from '../../protocol/constants.ts'
import type { Random } from '../lab/random.ts'
import { EventQueue } from './event-queue.ts'
import { SimulatedMachine } from './simulated-machine.ts'

/** What is the same for all machines of a simulated lab. */
export interface LabFacts {
  readonly blocks: number
  readonly blockBytes: number
  /** From one machine to any other. */
  readonly latencyMs: number
  /** From the receipt of a block until it is verified, written, flushed and told to the others. */
  readonly offerMs: number
  /** Of what each site is connected by to the others. */
  readonly uplinkBytesPerMs: number
}

export interface MachineFacts {
  readonly name: string
  /** Of both directions of its link. */
  readonly bytesPerMs: number
  /** Its LAN; what comes from another one crosses the uplink. */
  readonly site: string
  /** What it holds at the start. */
  readonly have: Bitmap
  /** It is dialled before others that are elsewhere. */
  readonly isMaster: boolean
  /** The others ask it last. */
  readonly reluctant?: boolean
  /** Sends wrong bytes. */
  readonly lies?: boolean
  /** Falls silent at this time, but stays connected. */
  readonly stallsAtMs?: number
  /** Goes away, and comes back with what it had flushed. */
  readonly away?: { readonly fromMs: number; readonly untilMs: number }
}

/** Runs machines, with the real picker on each, until all that should have everything have it. */
export class SimulatedLab {
  readonly events = new EventQueue()
  readonly facts: LabFacts
  readonly random: Random
  readonly machines: readonly SimulatedMachine[]
  /** By site: blocks that came over its uplink, and when that is free. */
  readonly uplinks = new Map<string, { blocks: number; freeAt: number }>()

  constructor(facts: LabFacts, machines: readonly MachineFacts[], random: Random) {
    this.facts = facts
    this.random = random
    this.machines = machines.map((one) => new SimulatedMachine(one, this))
  }

  /** When a block that is sent by `at` has crossed a site's uplink. */
  crosses(site: string, at: number): number {
    const uplink = this.uplinks.get(site) ?? { blocks: 0, freeAt: 0 }
    this.uplinks.set(site, uplink)
    uplink.blocks++
    uplink.freeAt = Math.max(uplink.freeAt, at) + this.facts.blockBytes / this.facts.uplinkBytesPerMs
    return uplink.freeAt
  }

  /** Those that are connected to one another. */
  online(): SimulatedMachine[] {
    return this.machines.filter((machine) => machine.online)
  }

  /** Errors: none; machines that did not end within `limitMs` have no `doneAt`. */
  run(limitMs: number): void {
    for (const machine of this.machines) machine.start()
    const tick = (): void => {
      for (const machine of this.online()) machine.tick()
      this.events.after(FETCH_TICK_MS, tick)
    }
    this.events.after(FETCH_TICK_MS, tick)
    while (this.events.now < limitMs && this.machines.some((machine) => !machine.isOver)) {
      // Looking at all machines takes longer than an event.
      for (let i = 0; i < 100; i++) this.events.step()
    }
  }
}
