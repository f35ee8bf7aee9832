import { FETCH_TICK_MS } from '../../node/exchange/ask/limits.ts'
import type { Random } from '../lab/random.ts'
import { EventQueue } from './event-queue.ts'
import type { LabFacts, MachineFacts } from './lab-facts.ts'
import { SimulatedMachine } from './simulated-machine.ts'

/** Runs machines, each with the real picker, until all machines that should have everything have it. */
export class SimulatedLab {
  readonly events = new EventQueue()
  readonly facts: LabFacts
  readonly random: Random
  readonly machines: readonly SimulatedMachine[]
  /** For each site: blocks that came over its uplink, and when the uplink is free again. */
  readonly uplinks = new Map<string, { blocks: number; freeAt: number }>()

  constructor(facts: LabFacts, machines: readonly MachineFacts[], random: Random) {
    this.facts = facts
    this.random = random
    this.machines = machines.map((one) => new SimulatedMachine(one, this))
  }

  /** Time at which a block that is sent at `at` has crossed the uplink of a site. */
  crosses(site: string, at: number): number {
    const uplink = this.uplinks.get(site) ?? { blocks: 0, freeAt: 0 }
    this.uplinks.set(site, uplink)
    uplink.blocks++
    uplink.freeAt = Math.max(uplink.freeAt, at) + this.facts.blockBytes / this.facts.uplinkBytesPerMs
    return uplink.freeAt
  }

  /** Machines that are connected to one another. */
  online(): SimulatedMachine[] {
    return this.machines.filter((machine) => machine.online)
  }

  /** Runs the lab. Machines that do not end within `limitMs` have no `doneAt`. */
  run(limitMs: number): void {
    for (const machine of this.machines) machine.start()
    const tick = (): void => {
      for (const machine of this.online()) machine.tick()
      this.events.after(FETCH_TICK_MS, tick)
    }
    this.events.after(FETCH_TICK_MS, tick)
    while (this.events.now < limitMs && this.machines.some((machine) => !machine.isOver)) {
      // Looking at all machines takes longer than an event, so it is done once for 100 events.
      for (let i = 0; i < 100; i++) this.events.step()
    }
  }
}
