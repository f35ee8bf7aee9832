import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { diskFacts } from '../../node/disk/disk-facts.ts'
import { openDevice } from '../../node/disk/file-device.ts'
import { Random } from '../lab/random.ts'
import { differing, judge } from './judge.ts'
import { type KillTask, runKillTask } from './kill-task.ts'
import type { Model } from './model.ts'
import { Power } from './power.ts'
import { PowerCutDevice } from './power-cut-device.ts'
import type { MachineRecord } from './simulated-machine.ts'

const VICTIM = join(import.meta.dirname, 'kill-victim.ts')
const UNIT_SIZES = [512, 4096] as const
const MOST_SESSION_OPERATIONS = 60
const MOST_RESTORE_OPERATIONS = 60

/**
 * One machine of real processes and files. Its sessions and restores kill themselves (SIGKILL) in the middle of an
 * operation on disk or log. The kernel lives on, so nothing that was written is lost, flushed or not.
 */
export async function killRun(model: Model, random: Random, directory: string): Promise<MachineRecord> {
  const place = await mkdtemp(join(directory, 'kill-'))
  try {
    return await new Victims(model, random, place).run()
  } finally {
    await rm(place, { recursive: true, force: true })
  }
}

class Victims {
  readonly #record: MachineRecord = { cuts: [], states: [], disks: [], faults: [] }
  readonly #model: Model
  readonly #random: Random
  readonly #directory: string
  readonly #unitSize: number

  constructor(model: Model, random: Random, directory: string) {
    this.#model = model
    this.#random = random
    this.#directory = directory
    this.#unitSize = UNIT_SIZES[random.below(UNIT_SIZES.length)]!
  }

  async run(): Promise<MachineRecord> {
    const random = this.#random
    const disk = Buffer.alloc(this.#model.diskSize)
    this.#model.releases[0].image.copy(disk)
    await writeFile(join(this.#directory, 'disk'), disk)
    await this.#restore(0, null)
    await this.#process({ operations: random.below(MOST_SESSION_OPERATIONS), blocksToFetch: null })
    await this.#restore(random.below(4) === 0 ? 1 : 0, random.below(MOST_RESTORE_OPERATIONS))
    await this.#process({ operations: random.below(MOST_SESSION_OPERATIONS), blocksToFetch: null })
    if (!(await this.#restore(random.below(4) === 0 ? 1 : 0, null)))
      this.#record.faults.push('a restore that nothing disturbed did not succeed')
    return this.#record
  }

  /** Makes a restore. Returns whether it came to its end; its result is compared. */
  async #restore(release: number, operations: number | null): Promise<boolean> {
    const blocksToFetch = operations !== null && this.#random.below(2) === 0 ? this.#random.below(20) : null
    const verified = await this.#process({ release, operations, blocksToFetch })
    if (!verified) return false
    const disk = await readFile(join(this.#directory, 'disk'))
    const wrong = differing(disk, this.#model.releases[release]!.image, this.#model.blockSize)
    if (wrong.length > 0) this.#record.faults.push(`blocks ${wrong.join(', ')} are wrong after a verified restore`)
    return true
  }

  async #process(what: Pick<KillTask, 'release' | 'operations' | 'blocksToFetch'>): Promise<boolean> {
    const task: KillTask = {
      ...what,
      directory: this.#directory,
      unitSize: this.#unitSize,
      seed: this.#random.below(2 ** 31),
    }
    const activity = what.release === undefined ? 'session' : 'restore'
    // A task that is not to be killed runs in this process: starting another one takes longer than the task.
    const { killed, verified } =
      task.operations === null ? { killed: undefined, verified: await runKillTask(task) } : await this.#victim(task)
    this.#record.cuts.push(`SIGKILL, ${killed ?? `${activity}: over`}`)
    await this.#judge(activity)
    return verified
  }

  async #victim(task: KillTask): Promise<{ killed: string | undefined; verified: boolean }> {
    const env = { ...process.env, NODE_COMPILE_CACHE: join(this.#directory, '..', 'compile-cache') }
    const child = spawn(process.execPath, [VICTIM, JSON.stringify(task)], { stdio: ['ignore', 'pipe', 'pipe'], env })
    let [out, err] = ['', '']
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString()
    })
    child.stderr.on('data', (chunk: Buffer) => {
      err += chunk.toString()
    })
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
    if (signal !== 'SIGKILL' && code !== 0)
      throw new Error(`the process with ${JSON.stringify(task)} ended with ${code ?? signal}:\n${err}`)
    return { killed: signal === 'SIGKILL' ? out.trim() : undefined, verified: out.includes('verified') }
  }

  async #judge(activity: string): Promise<void> {
    const file = await openDevice(join(this.#directory, 'disk'), { writable: false })
    const facts = await diskFacts(file)
    await file.close()
    const [disk, log] = await Promise.all(['disk', 'log'].map((name) => readFile(join(this.#directory, name))))
    const storage = new PowerCutDevice('log', log!, new Power(new Random(0), Number.POSITIVE_INFINITY))
    const { state, fault } = await judge(disk!, storage, facts, this.#unitSize, this.#model)
    this.#record.states.push(state)
    this.#record.disks.push(crc32(disk!))
    if (fault !== undefined) this.#record.faults.push(`after ${activity} (${this.#record.cuts.at(-1)}): ${fault}`)
  }
}
