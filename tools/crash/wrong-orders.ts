import type { BlockDevice } from '../../node/disk/block-device.ts'
import { DurableBitmap } from '../../node/writelog/durable-bitmap.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import type { ByteOffset } from '../../protocol/units.ts'
import { HONEST_PARTS, type Parts } from './simulated-machine.ts'

/** Machines that each break one rule of docs/DURABILITY.md. A campaign that passes with one of them proves nothing. */
export const WRONG_ORDERS = {
  /** The disk is written while the mark is still under way. */
  'write-before-mark': { ...HONEST_PARTS, log: (options) => new HastyMarks(options) },
  /** Marks are called durable when they are in the cache. */
  'log-never-flushed': { ...HONEST_PARTS, storage: (device) => new Unflushed(device) },
  /** Marks are cleared when the blocks are in the cache. */
  'clear-before-flush': { ...HONEST_PARTS, disk: (device) => new Unflushed(device) },
  /** The log begins anew as clean, whatever was found dirty. */
  'reset-too-much': { ...HONEST_PARTS, log: (options) => new ForgetfulResets(options) },
  /** A batch is cleared together with what stands behind it. */
  'clear-too-much': { ...HONEST_PARTS, log: (options) => new GreedyClears(options) },
} satisfies Record<string, Parts>

/** Name of a rule that is broken on purpose. */
export type WrongOrder = keyof typeof WRONG_ORDERS

class HastyMarks extends DurableBitmap {
  override markRun(start: number, end: number): Promise<void> | undefined {
    super.markRun(start, end)?.catch(() => undefined)
    return undefined
  }
}

class ForgetfulResets extends DurableBitmap {
  override reset(_dirty: RangeSet, period?: string): Promise<void> {
    return super.reset(RangeSet.empty, period)
  }
}

class GreedyClears extends DurableBitmap {
  override clear(units: RangeSet): Promise<void> {
    return super.clear(RangeSet.from([...units.runs()].map(([start, end]) => [start, end + 1])))
  }
}

/** Says that it has flushed, and has not. */
class Unflushed implements BlockDevice {
  readonly #device: BlockDevice
  readonly path: string
  readonly size: BlockDevice['size']
  readonly kind: BlockDevice['kind']

  constructor(device: BlockDevice) {
    this.#device = device
    this.path = device.path
    this.size = device.size
    this.kind = device.kind
  }

  read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    return this.#device.read(offset, into)
  }

  write(offset: ByteOffset, data: Uint8Array): Promise<void> {
    return this.#device.write(offset, data)
  }

  async flush(): Promise<void> {
    // Nothing is flushed, on purpose.
  }

  close(): Promise<void> {
    return this.#device.close()
  }
}
