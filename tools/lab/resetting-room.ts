import { rm, stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MeshEvent, MeshProcess } from './local-lab.ts'

const LOOK_MS = 100

/** The labs that a room can stand in. */
interface RoomLab {
  path(...parts: string[]): string
  ok(machine: string, args: readonly string[]): Promise<MeshEvent>
  serve(machine: string, args: readonly string[]): Promise<MeshProcess>
  stop(machine: string): Promise<void>
}

interface RoomOptions {
  /** Does to the disk what a session does, before the restore. */
  readonly session: (machine: string) => Promise<void>
  /** Machines that go down and never come back. */
  readonly lost: ReadonlySet<string>
}

/**
 * Machines that can be reset. The reset command of a machine leaves a file. The room sees the file, ends the machine's
 * `mesh up`, restores its disk as at boot, and starts `mesh up` again. Somebody uses a machine while its file
 * `NAME.user` has content.
 */
export class ResettingRoom {
  readonly resets: string[] = []
  readonly #lab: RoomLab
  readonly #options: RoomOptions
  readonly #machines: readonly string[]
  readonly #booting = new Set<Promise<void>>()
  #watching: Promise<void> = Promise.resolve()
  #open = true

  constructor(lab: RoomLab, machines: readonly string[], options: RoomOptions) {
    this.#lab = lab
    this.#machines = machines
    this.#options = options
  }

  /** Starts `mesh up` on all machines. They have joined before. */
  async open(): Promise<void> {
    await Promise.all(this.#machines.map((machine) => this.#up(machine)))
    this.#watching = this.#watch()
  }

  userFile(machine: string): string {
    return this.#lab.path(`${machine}.user`)
  }

  /** Ends when the last boot has ended. Errors: those of a boot that failed. */
  async close(): Promise<void> {
    this.#open = false
    await this.#watching
    await Promise.all(this.#booting)
  }

  async #watch(): Promise<void> {
    while (this.#open) {
      for (const machine of this.#machines) {
        const file = this.#lab.path(`${machine}.reset`)
        if (!(await stat(file).catch(() => undefined))) continue
        await rm(file)
        this.resets.push(machine)
        this.#booting.add(this.#boot(machine))
      }
      await sleep(LOOK_MS)
    }
  }

  async #boot(machine: string): Promise<void> {
    await this.#lab.stop(machine)
    if (this.#options.lost.has(machine)) return
    await this.#options.session(machine)
    await this.#lab.ok(machine, ['restore'])
    await this.#up(machine)
  }

  async #up(machine: string): Promise<void> {
    const reset = `: > ${this.#lab.path(`${machine}.reset`)}`
    const check = `cat ${this.userFile(machine)} 2> /dev/null`
    await this.#lab.serve(machine, ['up', '--reset-command', reset, '--in-use-check', check])
  }
}
