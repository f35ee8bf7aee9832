import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Lab } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { BARE_DISK_BYTES, BareMachine, type BareParts, DEADLINE_MS } from './bare-machine.ts'
import type { VirtualMachine } from './virtual-machine.ts'
import { VolatileDisk } from './volatile-disk.ts'

/** What the screen shows in what is cut off. */
const SHOWN = {
  laying: 'Preparing the disk',
  checking: 'Checking the disk',
  restoring: 'Putting back what was changed',
  keeping: 'Storing the start program on the disk',
} as const
/** Writes to the disk from then on until the plug is pulled, at most: few are likelier than many. */
const MOST_WRITES = 2000
/** A step that writes less ends before. */
const QUIET_MS = 60_000
const UPDATE_TRIES = 6
const APPROVE_TICK_MS = 3000
/** One of the old agent, one of the new one, and one more if the new one is asked only then. */
const UPDATE_STARTS = 3
const UPDATED = 'the agent on the disk: release 2, slot b'

/**
 * The plug of a machine is pulled at seeded moments, and its disk loses what was not flushed: in the first provisioning, in a later restore, and in the update of
 * the agent. Each time the machine goes on by itself. Whenever its system starts, the disk is the model.
 */
export async function cutsScenario(parts: BareParts, random: Random): Promise<string> {
  const disk = new VolatileDisk(BARE_DISK_BYTES)
  const { lab } = parts
  const saved = async (): Promise<string> => {
    await disk.save(lab.path('disk.img'))
    return lab.path('disk.img')
  }
  const medium = random.below(2) === 0 ? 'direct-bios' : 'direct-uefi'
  const machine = await BareMachine.open(parts, random, medium, {
    drive: await disk.serve(lab.path('disk.sock')),
    saved,
  })
  try {
    const cuts = new Cuts(machine, disk, random, lab)
    await cuts.inProvisioning()
    await cuts.inRestore()
    await cuts.inUpdate()
    return `${medium}: ${cuts.told.join('; ')}`
  } finally {
    await machine.close()
    await disk.close()
  }
}

class Cuts {
  readonly told: string[] = []
  readonly #lab: Lab
  readonly #machine: BareMachine
  readonly #disk: VolatileDisk
  readonly #random: Random

  constructor(machine: BareMachine, disk: VolatileDisk, random: Random, lab: Lab) {
    this.#lab = lab
    this.#machine = machine
    this.#disk = disk
    this.#random = random
  }

  /** A machine that had no disk yet to keep its key on asks again, and has to be approved by its name. */
  async inProvisioning(): Promise<void> {
    const approving = new AbortController()
    const approved = this.#approve(approving.signal)
    try {
      for (const step of ['laying', 'restoring', 'keeping'] as const)
        await this.#cut('provisioning', step, await this.#machine.switchOnBare())
      await this.#goesOn(await this.#machine.switchOnBare())
    } finally {
      approving.abort()
      this.told.push(`approved ${await approved} times`)
    }
  }

  /** Whoever asks is approved, as the machine that it was before. */
  async #approve(signal: AbortSignal): Promise<number> {
    const codes = new Set<string>()
    while (!signal.aborted) {
      const { machines } = await this.#lab.ok('master', ['machines'])
      for (const { code, state } of machines as unknown as { code: string; state: string }[]) {
        if (state !== 'waiting' || codes.has(code)) continue
        await this.#lab.ok('master', ['approve', '--code', code, '--as', 'pc1'])
        codes.add(code)
      }
      await sleep(APPROVE_TICK_MS, undefined, { signal }).catch(() => undefined)
    }
    return codes.size
  }

  async inRestore(): Promise<void> {
    await this.#dirty()
    for (const step of ['checking', 'restoring'] as const)
      await this.#cut('restore', step, await this.#machine.fromDisk(true))
    await this.#goesOn(await this.#machine.fromDisk(true))
  }

  /** The new agent is published; the cuts are while it is stored, and while it starts the machine for the first time. */
  async inUpdate(): Promise<void> {
    const good = await readFile(this.#machine.agentFile('agent.efi'))
    await this.#machine.publish(Buffer.concat([good, Buffer.alloc(512, 'x')]))
    let agent = ''
    // A restore that ends early does not hear of it.
    for (let tries = 0; tries < UPDATE_TRIES && !/release 2/.test(agent); tries++) {
      await this.#dirty()
      await this.#cut('update', 'keeping', await this.#machine.fromDisk(true))
      agent = await this.#goesOn(await this.#machine.fromDisk(true))
    }
    assert.match(agent, /release 2/)
    if (/tried/.test(agent))
      await this.#cut('first start of the new agent', 'checking', await this.#machine.fromDisk(false))
    // A start that was cut off is no fault of the agent: the old one starts once, and then the new one again.
    for (let starts = 0; starts < UPDATE_STARTS && agent !== UPDATED; starts++)
      agent = await this.#goesOn(await this.#machine.fromDisk(false))
    assert.equal(agent, UPDATED)
    this.told.push(agent)
  }

  async #dirty(): Promise<void> {
    await this.#machine.dirty()
    this.#disk.cut(this.#random)
  }

  /** Pulls the plug some writes after the screen has shown a step, or when the system is up. */
  async #cut(phase: string, step: keyof typeof SHOWN | undefined, guest: VirtualMachine): Promise<void> {
    const up = guest.event('up', DEADLINE_MS).then(
      () => 'when the system was up',
      () => 'when it had ended',
    )
    const shown =
      step === undefined ? Promise.resolve() : guest.shown(SHOWN[step], DEADLINE_MS).catch(() => sleep(DEADLINE_MS))
    let when = await Promise.race([up, shown.then(() => '')])
    if (when === '') {
      const writes = Math.floor(MOST_WRITES ** this.#random.next())
      const full = this.#disk.stopAfter(writes).then(() => `after ${writes} writes`)
      when = await Promise.race([up, full, sleep(QUIET_MS).then(() => 'when it had long been quiet')])
    }
    await guest.kill()
    const { unflushed, lost } = this.#disk.cut(this.#random)
    const text = `${phase}, ${step ?? 'from the beginning'}: cut ${when}, ${lost} of ${unflushed} sectors lost`
    console.log(`    ${text}`)
    this.told.push(text)
    if (when.includes('up')) assert.equal(await this.#machine.changed(), 0, 'what was started is the model')
  }

  /** Nobody does anything, and the system comes up on a disk that is the model. Returns what the agent says of itself. */
  async #goesOn(guest: VirtualMachine): Promise<string> {
    const { said, agent, seconds } = await this.#machine.up(guest)
    this.#disk.cut(this.#random)
    assert.equal(await this.#machine.changed(), 0, 'what was started is the model')
    const text = `it goes on: up after ${seconds} s, ${said}`
    console.log(`    ${text}; ${agent}`)
    this.told.push(text)
    return String(agent)
  }
}
