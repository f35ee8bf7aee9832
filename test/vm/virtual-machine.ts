import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import { askQemu } from './ask-qemu.ts'

/** A line of the guest's that is meant for us: `@@ {"event":…}`. */
export interface GuestEvent {
  readonly event: string
  readonly [key: string]: unknown
}

const MARK = '@@ '
/** A guest that has not begun by then hangs before its first program, as an emulated one does now and then. */
const BOOT_DEADLINE_MS = 60_000
const BOOT_TRIES = 3
/** So does one that has shown nothing at all by then, on a machine that does other things. */
const SILENT_MS = 150_000
/** Longest time for any one thing in a guest, which is emulated and slow. */
const EVENT_DEADLINE_MS = 120_000
/** A kernel on a busy computer panics if it finds that its timer has not ticked for a moment, unless it is told not to look. */
const KERNEL = 'quiet panic=-1 no_timer_check'
const KEPT_LINES = 60
/** A kernel that says all it has to say needs some thousand. */
const SEARCHED_LINES = 20_000
const SHOWN_TICK_MS = 100

export interface VirtualMachineOptions {
  /** Started by the emulator itself; without them the firmware looks on the disks. */
  readonly kernel?: KernelFiles
  readonly initramfs?: string
  /** QEMU's options of another firmware than its BIOS. @default none */
  readonly firmware?: readonly string[]
  /** QEMU's -drive options of /dev/vda, /dev/vdb and so on. */
  readonly drives: readonly string[]
  /** Told to the guest on its kernel's command line, as mesh.NAME=VALUE. */
  readonly tell: Readonly<Record<string, string | number>>
  /** QEMU's options of a network card. @default none */
  readonly network?: readonly string[]
  /** Bytes of a sector, if the disks are NVMe. @default virtio */
  readonly nvme?: number
  /** @default 2 */
  readonly cpus?: number
  /** MiB. @default 1280 */
  readonly memory?: number
  /** Command that QEMU is run through, such as one that enters a network namespace. @default none */
  readonly through?: readonly string[]
  /** Path for a socket through which the guest has a screen, a keyboard, and cables that can be pulled. @default none of them */
  readonly front?: string
  /** A guest that restarts does so, as a computer does; without it that ends the guest. @default false */
  readonly restarts?: boolean
}

/** A guest that is emulated, not accelerated, so that it runs everywhere; whoever ends us ends it, too. */
export class VirtualMachine {
  static readonly #running = new Set<VirtualMachine>()
  readonly #command: readonly string[]
  #child: ChildProcess
  readonly #lines: string[] = []
  /** All that was shown, for whoever waits for a line among many. */
  readonly #shown: string[] = []
  readonly #events: GuestEvent[] = []
  readonly #exited = Promise.withResolvers<void>()
  readonly #front: string | undefined
  /** Firmware may be silent for long. */
  readonly #showsSoon: boolean
  #tries = 1
  #hasShown = false
  #isKilled = false
  #ended = false
  #wake: () => void = () => undefined

  /** A guest whose program has begun. */
  static async boot(options: VirtualMachineOptions): Promise<VirtualMachine> {
    for (let tries = 1; ; tries++) {
      const machine = new VirtualMachine(options)
      try {
        await machine.event('booted', BOOT_DEADLINE_MS)
        return machine
      } catch (error) {
        await machine.kill()
        if (tries === BOOT_TRIES) throw error
        console.log(`    boot ${tries} came to nothing: ${(error as Error).message.split('\n')[0]}`)
      }
    }
  }

  /** A guest that has just been switched on. */
  static start(options: VirtualMachineOptions): VirtualMachine {
    return new VirtualMachine(options)
  }

  private constructor(options: VirtualMachineOptions) {
    const { kernel, initramfs, firmware = [], drives, nvme, tell, network = [], memory = 1280, through = [] } = options
    const { front, restarts = false, cpus = 2 } = options
    this.#front = front
    const consoles = front === undefined ? 'console=ttyS0' : 'console=tty0 console=ttyS0'
    const told = Object.entries(tell).map(([name, value]) => `mesh.${name}=${value}`)
    const driver = nvme === undefined ? 'virtio-blk-pci' : `nvme,logical_block_size=${nvme},physical_block_size=${nvme}`
    const args = [
      ...[
        '-accel',
        'tcg,thread=multi',
        '-cpu',
        'max',
        '-smp',
        String(cpus),
        '-m',
        String(memory),
        '-nodefaults',
        '-no-user-config',
      ],
      ...['-display', 'none', '-monitor', 'none', '-serial', 'stdio', ...(restarts ? [] : ['-no-reboot'])],
      ...(front === undefined ? [] : ['-vga', 'std', '-qmp', `unix:${front},server=on,wait=off`]),
      ...firmware,
      ...(kernel === undefined || initramfs === undefined
        ? []
        : ['-kernel', kernel.image, '-initrd', initramfs, '-append', `${KERNEL} ${consoles} ${told.join(' ')}`]),
      // With serial numbers, by which a write log knows its disk after a reboot.
      ...drives.flatMap((drive, i) => [
        ...['-drive', `${drive},if=none,id=disk${i},discard=unmap`],
        ...['-device', `${driver},drive=disk${i},serial=lab-${i}`],
      ]),
      ...network,
    ]
    this.#showsSoon = kernel !== undefined
    this.#command = [...through, 'qemu-system-x86_64', ...args]
    this.#child = this.#switchOn()
    VirtualMachine.#running.add(this)
  }

  /** Starts QEMU. A guest that has shown nothing at all has done nothing, and is started again. */
  #switchOn(): ChildProcess {
    const [program = '', ...args] = this.#command
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [child.stdout, child.stderr])
      createInterface({ input: stream }).on('line', (line) => this.#take(line))
    let isStill = false
    const timer = setTimeout(() => {
      if (!this.#showsSoon || this.#hasShown || this.#tries === BOOT_TRIES) return
      isStill = true
      child.kill('SIGKILL')
    }, SILENT_MS)
    child.once('error', (error) => this.#take(error.message))
    child.once('close', () => {
      clearTimeout(timer)
      if (isStill && !this.#isKilled) {
        console.log(`    start ${this.#tries++} came to nothing: the guest showed nothing for ${SILENT_MS / 1000} s`)
        this.#child = this.#switchOn()
        return
      }
      VirtualMachine.#running.delete(this)
      this.#ended = true
      this.#wake()
      this.#exited.resolve()
    })
    return child
  }

  /** For a signal handler: ends every guest at once. */
  static killAll(): void {
    for (const machine of VirtualMachine.#running) machine.#end()
  }

  /** The next event of this name, in the order in which they came. An event `failed`, or the guest's end, is an error. */
  async event(name: string, deadlineMs = EVENT_DEADLINE_MS): Promise<GuestEvent> {
    const deadline = Date.now() + deadlineMs
    for (;;) {
      for (let event = this.#events.shift(); event !== undefined; event = this.#events.shift()) {
        if (event.event === 'failed') throw new Error(`the guest failed: ${String(event.message)}\n${this.#tail()}`)
        if (event.event === name) return event
      }
      if (this.#ended) throw new Error(`the guest ended before ${name}:\n${this.#tail()}`)
      const left = deadline - Date.now()
      if (left <= 0) throw new Error(`no ${name} from the guest within ${deadlineMs / 1000} s:\n${this.#tail()}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  /**
   * All that the console shows now, once it has shown this text in one line, so many times. Errors: the guest ended, or did not show it in
   * time.
   */
  async shown(text: string, deadlineMs = EVENT_DEADLINE_MS, times = 1): Promise<string> {
    const deadline = Date.now() + deadlineMs
    while (this.#shown.filter((line) => line.includes(text)).length < times) {
      if (this.#ended) throw new Error(`the guest ended before it showed ${text}:\n${this.#tail()}`)
      if (Date.now() >= deadline)
        throw new Error(`the guest did not show ${text} within ${deadlineMs / 1000} s:\n${this.#tail()}`)
      await sleep(SHOWN_TICK_MS)
    }
    return this.#tail()
  }

  /** Presses a key of the guest's keyboard; names are QEMU's: `2`, `m`, `ret`, `esc`. */
  async press(key: string): Promise<void> {
    await this.#ask('send-key', { keys: [{ type: 'qcode', data: key }] })
  }

  /** Puts the cable of a network card in, or pulls it. */
  async cable(name: string, isIn: boolean): Promise<void> {
    await this.#ask('set_link', { name, up: isIn })
  }

  /** Takes a picture of the guest's screen, a PNG. */
  async picture(path: string): Promise<void> {
    await this.#ask('screendump', { filename: path, format: 'png' })
  }

  /** As if the plug were pulled. */
  async kill(): Promise<void> {
    this.#end()
    await this.#exited.promise
  }

  /** Waits until the guest has switched itself off. */
  async ended(): Promise<void> {
    await this.#exited.promise
  }

  #end(): void {
    this.#isKilled = true
    this.#child.kill('SIGKILL')
  }

  #take(line: string): void {
    this.#hasShown = true
    // The console ends lines with a carriage return, and the kernel may write in the middle of one.
    const text = line.replace(/\r$/, '')
    const at = text.indexOf(MARK)
    if (at === -1) {
      this.#lines.push(text)
      if (this.#shown.length < SEARCHED_LINES) this.#shown.push(text)
      if (this.#lines.length > KEPT_LINES) this.#lines.shift()
      if (process.env.MESH_VM_DEBUG !== undefined) console.log(`    | ${text}`)
    } else {
      this.#events.push(JSON.parse(text.slice(at + MARK.length)) as GuestEvent)
      if (process.env.MESH_VM_DEBUG !== undefined)
        console.log(`    | ${(performance.now() / 1000).toFixed(1)} ${text.slice(0, 300)}`)
      this.#wake()
    }
  }

  #ask(command: string, args: object): Promise<unknown> {
    if (this.#front === undefined) throw new Error('this guest has no front')
    return askQemu(this.#front, command, args)
  }

  #tail(): string {
    return this.#lines.join('\n')
  }
}
