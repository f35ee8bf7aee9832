import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Random } from '../lab/random.ts'
import { killRun } from './kill-run.ts'
import { type ModelName, openModel } from './model.ts'
import { powerCutRun } from './power-cut-run.ts'
import { HONEST_PARTS, type MachineRecord } from './simulated-machine.ts'
import { WRONG_ORDERS, type WrongOrder } from './wrong-orders.ts'

/** How a run ends its machines. */
export type RunKind = 'power cut' | 'power cut, large image' | 'SIGKILL'

/** One run in 40 uses real processes, and one in 100 the large image. */
const KILL_ONE_IN = 40
const LARGE_ONE_IN = 100

/** The kind of run number `run`. */
export function kindOf(run: number, order?: WrongOrder): RunKind {
  // A broken rule is built into the simulated machine only.
  if (order === undefined && run % KILL_ONE_IN === KILL_ONE_IN - 1) return 'SIGKILL'
  return run % LARGE_ONE_IN === LARGE_ONE_IN / 2 ? 'power cut, large image' : 'power cut'
}

/** Makes runs of a campaign. A run depends on the seed of the campaign and on its own number only. */
export class CrashRuns {
  readonly #seed: number
  readonly #order: WrongOrder | undefined
  readonly #directory: string
  readonly #models = new Map<ModelName, ReturnType<typeof openModel>>()

  private constructor(seed: number, order: WrongOrder | undefined, directory: string) {
    this.#seed = seed
    this.#order = order
    this.#directory = directory
  }

  /** `order`: what the machines do wrong on purpose. */
  static async open(seed: number, order?: WrongOrder): Promise<CrashRuns> {
    return new CrashRuns(seed, order, await mkdtemp(join(tmpdir(), 'mesh-crash-')))
  }

  /** Makes a run. An error that ends the run counts as a fault. */
  async run(number: number): Promise<MachineRecord> {
    const random = new Random(Math.imul(this.#seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b))
    const parts = this.#order === undefined ? HONEST_PARTS : WRONG_ORDERS[this.#order]
    try {
      switch (kindOf(number, this.#order)) {
        case 'SIGKILL':
          return await killRun(await this.#model('small'), random, this.#directory)
        case 'power cut, large image':
          return await powerCutRun(await this.#model('large'), random, parts)
        case 'power cut':
          return await powerCutRun(await this.#model('small'), random, parts)
      }
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      return { cuts: [], states: [], disks: [], faults: [`the run ended with an error: ${text}`] }
    }
  }

  async close(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }

  #model(name: ModelName): ReturnType<typeof openModel> {
    const known = this.#models.get(name) ?? openModel(this.#directory, name)
    this.#models.set(name, known)
    return known
  }
}
