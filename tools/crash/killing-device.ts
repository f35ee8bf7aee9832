import { writeSync } from 'node:fs'
import type { BlockDevice } from '../../node/disk/block-device.ts'
import type { ByteOffset } from '../../protocol/units.ts'
import type { Random } from '../lab/random.ts'

/** Counts the operations of the disks, and kills this process at the chosen one. */
export class Deadline {
  readonly #random: Random
  #left: number
  activity = ''

  constructor(random: Random, operations: number) {
    this.#random = random
    this.#left = operations
  }

  /** Runs an operation. The last one is begun, and the process is killed a moment later, in the middle of it. */
  async around(operation: string, work: () => Promise<void>): Promise<void> {
    if (this.#left-- !== 0) return work()
    work().catch(() => undefined)
    for (let turns = this.#random.below(4); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve))
    writeSync(1, `${this.activity}: ${operation}\n`)
    process.kill(process.pid, 'SIGKILL')
    // Nothing may happen until the signal comes.
    await new Promise(() => undefined)
  }
}

/** A real disk on which the process is killed in the middle of an operation. */
export class KillingDevice implements BlockDevice {
  readonly path: string
  readonly size: BlockDevice['size']
  readonly kind: BlockDevice['kind']
  readonly #name: string
  readonly #device: BlockDevice
  readonly #deadline: Deadline

  constructor(name: string, device: BlockDevice, deadline: Deadline) {
    this.#name = name
    this.#device = device
    this.#deadline = deadline
    this.path = device.path
    this.size = device.size
    this.kind = device.kind
  }

  read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    return this.#deadline.around(`${this.#name} read`, () => this.#device.read(offset, into))
  }

  write(offset: ByteOffset, data: Uint8Array): Promise<void> {
    const operation = `${this.#name} write${offset === 0 ? ' at 0' : ''}`
    return this.#deadline.around(operation, () => this.#device.write(offset, data))
  }

  flush(): Promise<void> {
    return this.#deadline.around(`${this.#name} flush`, () => this.#device.flush())
  }

  close(): Promise<void> {
    return this.#device.close()
  }
}
