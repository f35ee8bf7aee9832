import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** How a command ended. */
export interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * The system of this machine as a copy that is changed instead: an overlay in memory, in a mount namespace of its own. Packages
 * are installed there by its own dpkg. It looks as if systemd ran, and `systemctl` only makes links, and writes down how it
 * was called, in /run/systemctl; /run/active says whether a service is active. `shared` is a directory of this machine, at /mnt there. When it
 * is closed, nothing is left.
 */
export class SystemCopy {
  readonly #holder: ChildProcess
  readonly #directory: string
  readonly #running = new Set<ChildProcess>()

  private constructor(holder: ChildProcess, directory: string) {
    this.#holder = holder
    this.#directory = directory
  }

  /** `directory` is made for it. Throws if the machine does not allow it: root and overlayfs are needed. */
  static async open(directory: string, shared: string): Promise<SystemCopy> {
    await mkdir(directory)
    const holder = spawn(
      'unshare',
      ['--mount', '--propagation', 'private', 'sh', '-ec', SET_UP, 'sh', directory, shared],
      {
        stdio: ['pipe', 'pipe', 'pipe'],
      },
    )
    let said = ''
    holder.stderr.on('data', (part: Buffer) => {
      said += part.toString()
    })
    await Promise.race([once(holder.stdout, 'data'), once(holder, 'exit')])
    if (holder.exitCode !== null) throw new Error(`no copy of the system can be made: ${said.trim()}`)
    return new SystemCopy(holder, directory)
  }

  /** Starts a command in the copy. */
  start(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    const inside = ['--mount', `--target=${this.#holder.pid}`, 'chroot', `${this.#directory}/root`]
    const child = spawn('nsenter', [...inside, command, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive', ...env },
    })
    this.#running.add(child)
    child.on('exit', () => this.#running.delete(child))
    return child
  }

  /** Runs a command in the copy to its end. */
  async run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
    const child = this.start(command, args, env)
    const said = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const)
      child[name]?.on('data', (part: Buffer) => {
        said[name] += part.toString()
      })
    const [code] = await once(child, 'close')
    return { code, ...said }
  }

  /** Runs a shell command that must succeed, and returns what it printed. */
  async shell(command: string): Promise<string> {
    const { code, stdout, stderr } = await this.run('sh', ['-ec', command])
    if (code !== 0) throw new Error(`${command}: ${stdout}${stderr}`)
    return stdout.trim()
  }

  async close(): Promise<void> {
    const ends = [...this.#running, this.#holder].map((child) => {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      return ended
    })
    await Promise.all(ends)
    await run('rmdir', [this.#directory])
  }
}

const SET_UP = `
mount -t tmpfs system "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" system "$1/root"
cd "$1/root"
mount -t tmpfs run run
mkdir -p run/systemd/system
mount --rbind /proc proc
mount --rbind /dev dev
mount --bind "$2" mnt
rm -rf var/lib/lab-mesh var/cache/lab-mesh etc/lab-mesh etc/systemd/system/mesh-*
rm -f usr/sbin/policy-rc.d
mv usr/bin/systemctl usr/bin/systemctl.real
cat >usr/bin/systemctl <<'END'
#!/bin/sh
echo "$*" >>/run/systemctl
case "$*" in
*preset*) exec /usr/bin/systemctl.real "$@" ;;
*is-active*) cat /run/active 2>/dev/null || { echo inactive; exit 3; } ;;
*is-enabled*) echo enabled ;;
esac
END
chmod 755 usr/bin/systemctl
echo ready
# Until whoever made this copy ends.
exec cat >/dev/null
`
