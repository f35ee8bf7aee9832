import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'

/**
 * A process as people know it: `qemu-system-x86_64 (process 812)`. A program of Node is called by its own name and command:
 * `mesh monitor (process 91)`. Sources: proc_pid_cmdline(5), proc_pid_comm(5).
 */
export async function processName(pid: string, proc = '/proc'): Promise<string> {
  const words = (await readFile(`${proc}/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0')
  // `comm` ends after 15 letters, and threads may change it. Threads of the kernel have no command line.
  const comm = (await readFile(`${proc}/${pid}/comm`, 'utf8').catch(() => '')).trim()
  return `${nameOf(words) || comm || 'a program'} (process ${pid})`
}

function nameOf([program = '', ...args]: readonly string[]): string {
  const name = basename(program)
  if (name !== 'node') return name
  const script = args.findIndex((word) => /\.[cm]?[jt]s$/.test(word) || basename(word) === 'mesh')
  if (script === -1) return name
  return `${basename(args[script]!).replace(/\.[cm]?[jt]s$/, '')} ${args[script + 1] ?? ''}`.trim()
}
