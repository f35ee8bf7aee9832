import { KernelDisks } from '../../node/disk/kernel-disks.ts'
import type { EraSystem } from '../../node/writelog/era-device.ts'
import { type RunTool, runSystemTool } from '../../node/writelog/system-tool.ts'
import { MeshError } from '../../protocol/errors.ts'

interface Device {
  readonly number: string
  readonly table: string
  suspended: boolean
  discardMax: number
}

/**
 * Device mapper with dm-era as far as its answers go, for machines whose kernel has none; loop devices, era_restore and all
 * else is real. The slow suite has the real one.
 */
export class ScriptedEra {
  readonly devices = new Map<string, Device>()
  /** Names and arguments of what was run, in order. */
  readonly ran: string[] = []
  era = 0
  /** The era in which each block was written last. */
  readonly written = new Map<number, number>()
  snapshot = false
  /** Programs that fail, with what they say; '' as name of a missing one. */
  readonly broken = new Map<string, string>()
  holders: string[] = []
  /** Of every disk; a device takes it over when it is made. */
  diskDiscardMax = 1024 ** 2
  status = ''
  #next = 0

  system(runDir: string, kernel = '6.1.0-56-amd64'): EraSystem {
    return { run: this.#run, disks: new ScriptedDisks(this), kernel, runDir }
  }

  write(...blocks: number[]): void {
    for (const block of blocks) this.written.set(block, this.era)
  }

  /** A crash: nothing is active any more; what was written is in the metadata. */
  crash(): void {
    this.devices.clear()
  }

  readonly #run: RunTool = async (name, args) => {
    this.ran.push([name, ...args].join(' '))
    const said = this.broken.get(args[0] === 'message' ? String(args.at(-1)) : name)
    if (said === '') return runSystemTool('/nonexistent/tool', [])
    if (said !== undefined) throw new MeshError('ERA_FAILED', `${name}: ${said}`)
    if (name === 'dmsetup') return this.#dmsetup(args)
    // New metadata: the kernel will count on from what they say.
    if (name === 'era_restore') this.era = 0
    // There is no such device.
    if (name === 'sync') return ''
    if (name === 'era_invalidate') return this.#invalidate(Number(args[args.indexOf('--written-since') + 1]))
    return runSystemTool(name, args)
  }

  async #dmsetup(args: readonly string[]): Promise<string> {
    if (args[0] === 'remove') return this.#remove(args.slice(1).filter((name) => name !== '--retry'))
    const name = String(args[1])
    if (args[0] === 'create') {
      const table = String(args.at(-1))
      const [, , target, metadata] = table.split(' ')
      if (target === 'era') await this.#activate(String(metadata))
      this.devices.set(name, {
        number: `253:${this.#next++}`,
        table,
        suspended: false,
        discardMax: this.diskDiscardMax,
      })
      return ''
    }
    const device = this.devices.get(name)
    if (device === undefined) throw new MeshError('ERA_FAILED', `Device ${name} does not exist.`)
    if (args[0] === 'table') return `${device.table}\n`
    if (args[0] === 'status')
      return this.status || `0 ${device.table.split(' ')[1]} era 8 10/2048 ${this.era} ${this.snapshot ? '31' : '-'}\n`
    if (args[0] === 'message') this.#message(String(args[3]))
    return ''
  }

  #remove(names: readonly string[]): string {
    for (const name of names)
      if (!this.devices.delete(name)) throw new MeshError('ERA_FAILED', `Device ${name} does not exist.`)
    return ''
  }

  async #activate(metadata: string): Promise<void> {
    if (this.era === 0) {
      const node = await new KernelDisks().nodeOf(metadata)
      this.era = Number(/current_era="(\d+)"/.exec(await runSystemTool('era_dump', [node]))?.[1] ?? 0)
    }
    this.era++
  }

  #message(text: string): void {
    if (text === 'checkpoint') this.era++
    else if ((text === 'take_metadata_snap') === this.snapshot) throw new MeshError('ERA_FAILED', 'Invalid argument')
    else {
      this.snapshot = !this.snapshot
      if (this.snapshot) this.era++
    }
  }

  #invalidate(since: number): string {
    const blocks = [...this.written].filter(([, era]) => era >= since).map(([block]) => `  <block block="${block}"/>\n`)
    return `<blocks>\n${blocks.join('')}</blocks>\n`
  }
}

class ScriptedDisks extends KernelDisks {
  readonly #era: ScriptedEra

  constructor(era: ScriptedEra) {
    super()
    this.#era = era
  }

  override async mapped(name: string): Promise<{ number: string; suspended: boolean } | undefined> {
    return this.#era.devices.get(name)
  }

  override async holdersOf(number: string): Promise<string[]> {
    return this.#era.holders.length > 0 ? this.#era.holders : super.holdersOf(number)
  }

  override async discardMax(number: string): Promise<number> {
    return this.#device(number)?.discardMax ?? this.#era.diskDiscardMax
  }

  override async setDiscardMax(number: string, bytes: number): Promise<void> {
    const device = this.#device(number)
    if (device === undefined) this.#era.diskDiscardMax = bytes
    else device.discardMax = bytes
  }

  #device(number: string): Device | undefined {
    return [...this.#era.devices.values()].find((device) => device.number === number)
  }
}
