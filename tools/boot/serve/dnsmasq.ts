import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, chown, copyFile, lstat, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { portHolder } from '../../../node/net/port-holder.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { whichProgram } from '../build-tool.ts'
import { type DnsmasqOptions, dnsmasqConfig } from './dnsmasq-config.ts'
import { DNSMASQ_END_MS, DNSMASQ_START_MS, KEPT_LINES, MAX_LINE_BYTES } from './limits.ts'

/** How the names of its folders begin; the number of the process follows. */
const FOLDER = 'mesh-boot-serve-'
/** User and group that nothing belongs to (Debian policy, 9.2). */
const NOBODY = 65534
/** What dnsmasq needs of root: ports below 1024, raw packets to machines without an address, entries of the ARP table. */
const CAPABILITIES = '-all,+net_admin,+net_raw,+net_bind_service'

/**
 * dnsmasq as a child, with a configuration and a folder of its own. The system’s dnsmasq is not touched. It runs as nobody, and the kernel ends it when this
 * process ends, in whatever way (PR_SET_PDEATHSIG, prctl(2)).
 */
export class Dnsmasq {
  /** Ends when dnsmasq does. It never throws. */
  readonly ended: Promise<void>
  readonly #child: ChildProcess
  readonly #folder: string
  readonly #last: string[] = []
  #isReady: () => void = () => undefined

  private constructor(program: string, folder: string, onLine: (line: string) => void) {
    this.#folder = folder
    this.#child = spawn(
      'setpriv',
      [
        ...[`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--no-new-privs', '--pdeathsig=KILL'],
        ...[`--inh-caps=${CAPABILITIES}`, `--ambient-caps=${CAPABILITIES}`, `--bounding-set=${CAPABILITIES}`],
        ...[program, '--keep-in-foreground', `--conf-file=${join(folder, 'dnsmasq.conf')}`],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' } },
    )
    for (const input of [this.#child.stdout!, this.#child.stderr!])
      createInterface({ input }).on('line', (line) => this.#take(line.slice(0, MAX_LINE_BYTES), onLine))
    this.ended = new Promise((resolve) => {
      this.#child.once('error', () => resolve())
      this.#child.once('close', () => resolve())
    })
  }

  /**
   * Starts it, and returns when it serves. `programs` are copied to where it sends files from. Errors: TOOL_MISSING, PORT_TAKEN,
   * BOOT_SERVE_FAILED.
   */
  static async start(
    options: DnsmasqOptions & { readonly programs: readonly string[]; readonly onLine: (line: string) => void },
  ): Promise<Dnsmasq> {
    const program = await whichProgram('dnsmasq')
    await whichProgram('setpriv')
    await removeLeftovers()
    const folder = await mkdtemp(join(tmpdir(), `${FOLDER}${process.pid}-`))
    try {
      const [tftp, state] = [join(folder, 'tftp'), join(folder, 'state')]
      await chmod(folder, 0o755)
      await mkdir(tftp)
      await mkdir(state, { mode: 0o700 })
      await chown(state, NOBODY, NOBODY)
      for (const path of options.programs) {
        await copyFile(path, join(tftp, basename(path)))
        await chmod(join(tftp, basename(path)), 0o644)
      }
      await writeFile(join(folder, 'dnsmasq.conf'), dnsmasqConfig(options, { tftp, leases: join(state, 'leases') }))
      const started = new Dnsmasq(program, folder, options.onLine)
      await started.#untilReady(options.range === undefined)
      return started
    } catch (error) {
      await rm(folder, { recursive: true, force: true })
      throw error
    }
  }

  /** Why it has ended, for people. */
  get why(): string {
    const { exitCode, signalCode } = this.#child
    const how = signalCode === null ? `with code ${exitCode}` : `by ${signalCode}`
    const said = this.#last.length === 0 ? '' : `: ${this.#last.join('; ')}`
    return `dnsmasq has ended ${how}${said}`
  }

  /** Ends it, and removes its folder. */
  async close(): Promise<void> {
    this.#child.kill('SIGTERM')
    const late = setTimeout(() => this.#child.kill('SIGKILL'), DNSMASQ_END_MS)
    await this.ended
    clearTimeout(late)
    await rm(this.#folder, { recursive: true, force: true })
  }

  #take(line: string, onLine: (line: string) => void): void {
    // What it tells when everything is open.
    if (/^dnsmasq-tftp\[\d+\]: TFTP root is /.test(line)) this.#isReady()
    else if (!/^dnsmasq-|compile time options|started, version/.test(line) && line.trim() !== '') {
      this.#last.push(line.trim().replace(/^dnsmasq(\[\d+\])?: /, ''))
      if (this.#last.length > KEPT_LINES) this.#last.shift()
    }
    onLine(line)
  }

  async #untilReady(isProxy: boolean): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const ready = new Promise<'ready'>((resolve) => {
      this.#isReady = () => resolve('ready')
    })
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), DNSMASQ_START_MS)
    })
    const outcome = await Promise.race([ready, late, this.ended.then(() => 'ended' as const)])
    clearTimeout(timer)
    if (outcome === 'ready') return
    this.#child.kill('SIGKILL')
    await this.ended
    const said = this.#last.join('; ')
    if (/in use/i.test(said)) throw await takenError(said, isProxy)
    const why = outcome === 'late' ? `dnsmasq did not begin within ${DNSMASQ_START_MS / 1000} s` : this.why
    throw new MeshError('BOOT_SERVE_FAILED', why)
  }
}

/** Folders of processes that were killed. Only root could have made them. */
async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const [, pid] = new RegExp(`^${FOLDER}(\\d+)-`).exec(name) ?? []
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue
    const path = join(tmpdir(), name)
    const found = await lstat(path).catch(() => undefined)
    if (found?.isDirectory() === true && found.uid === process.getuid?.())
      await rm(path, { recursive: true, force: true })
  }
}

/** Which of the ports that dnsmasq wants another program has. */
async function takenError(said: string, isProxy: boolean): Promise<MeshError> {
  const wanted = /DHCP/.test(said) ? [67, ...(isProxy ? [4011] : [])] : [69]
  for (const port of wanted) {
    const holder = await portHolder(port, { kind: 'udp' })
    if (holder !== undefined) return new MeshError('PORT_TAKEN', `${holder} has port ${port} (UDP) already`)
  }
  return new MeshError('PORT_TAKEN', `another program has port ${wanted.join(' or ')} (UDP) already: ${said}`)
}
