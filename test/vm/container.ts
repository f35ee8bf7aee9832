import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { runTool } from '../../tools/lab/run-tool.ts'

const RELEASE = 'bookworm'
/** What a Debian with systemd has at least, and what mesh asks of the system. */
const PACKAGES = ['systemd', 'systemd-sysv', 'dbus', 'debconf', 'procps', 'util-linux', 'bsdutils']
/** systemd has begun, and ended, on a machine that does other things. */
const STATE_DEADLINE_MS = 180_000
const TICK_MS = 200

/** A folder with a small Debian, made once by debootstrap; it is kept in the user's cache folder. */
export async function fetchDebian(): Promise<string> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'lab-mesh-vm')
  await mkdir(cache, { recursive: true })
  const folder = join(cache, `debian-${RELEASE}`)
  if (existsSync(folder)) return folder
  const work = await mkdtemp(join(cache, 'new-'))
  try {
    console.log(`making a Debian ${RELEASE}`)
    const args = ['--variant=minbase', `--include=${PACKAGES.join()}`, RELEASE, join(work, 'root')]
    await runTool('debootstrap', args)
    await rename(join(work, 'root'), folder)
    return folder
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/**
 * A Debian whose first process is systemd, in namespaces of its own (systemd-nspawn(1)): its units are what they are on a machine. Its network is
 * that of this machine, and it has this machine's kernel.
 */
export class Container {
  static readonly #running = new Set<Container>()
  readonly #nspawn: ChildProcess
  readonly ended: Promise<unknown>

  private constructor(root: string) {
    const args = ['-D', root, '--boot', '--register=no', '--keep-unit', '--console=read-only']
    this.#nspawn = spawn('systemd-nspawn', args, { stdio: 'ignore' })
    this.ended = once(this.#nspawn, 'close').then(() => Container.#running.delete(this))
    Container.#running.add(this)
  }

  /** Switches it on, and waits until all units that begin with it have begun, or failed. */
  static async boot(root: string): Promise<Container> {
    const container = new Container(root)
    await container.until(async () => (await container.#leader()) !== undefined)
    // It ends with an error where a unit has failed.
    const look = ['sh', '-c', 'systemctl is-system-running || true']
    await container.until(async () => /^(running|degraded)\n$/.test(await container.asks(...look)))
    return container
  }

  /** Ends all of them; what runs in them ends with their first process. */
  static async killAll(): Promise<void> {
    for (const one of Container.#running) {
      one.#nspawn.kill('SIGKILL')
      await one.ended
    }
  }

  /** Runs a program in it. Errors: what it said, if it fails. */
  async run(...command: readonly string[]): Promise<string> {
    const leader = await this.#leader()
    if (leader === undefined) throw new Error('the container has ended')
    const env = ['env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/root', 'DEBIAN_FRONTEND=noninteractive']
    return runTool('nsenter', [
      `--target=${leader}`,
      '-m',
      '-u',
      '-i',
      '-p',
      '-C',
      '-r',
      '-w',
      '--',
      ...env,
      ...command,
    ])
  }

  /** What a program prints that may fail, as one that is asked too early. */
  async asks(...command: readonly string[]): Promise<string> {
    return this.run(...command).catch((error: unknown) => String(error))
  }

  /** Waits until this is so. Errors: after STATE_DEADLINE_MS, with the journal of the units of mesh. */
  async until(isSo: () => Promise<boolean>): Promise<void> {
    const end = performance.now() + STATE_DEADLINE_MS
    while (!(await isSo())) {
      if (performance.now() > end)
        throw new Error(`the container is not so far:\n${await this.asks('journalctl', '--no-pager', '-n', '50')}`)
      await sleep(TICK_MS)
    }
  }

  async powerOff(): Promise<void> {
    await this.asks('systemctl', 'poweroff')
    await this.ended
  }

  /** The process that is the first one in it; undefined if there is none (yet, or any more). */
  async #leader(): Promise<string | undefined> {
    const { pid } = this.#nspawn
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')
    return /^\d+/.exec(children)?.[0]
  }
}
