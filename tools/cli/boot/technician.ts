import { type SpawnOptions, spawn } from 'node:child_process'

/** Clears the console and shows the cursor, which the picture has hidden. The first terminal that a session opens becomes its own. */
const SHELL = `exec <"$0" >"$0" 2>&1; printf '\\033[2J\\033[H\\033[?25hexit: back to the menu\\n'; cd /; exec sh -i`

/** A shell of the agent on a console, until it ends. */
export async function runShell(console: string): Promise<void> {
  await run('sh', ['-c', SHELL, console], { detached: true, env: { ...process.env, TERM: 'linux', PS1: 'agent# ' } })
}

/** Restarts or switches off. What was written is on the disk before that. */
export async function powerMachine(how: 'reboot' | 'poweroff'): Promise<void> {
  await run('sync', [])
  await run(how, ['-f'])
}

/** A program that is missing, or fails, leaves the menu as it is. */
function run(program: string, args: readonly string[], options: SpawnOptions = {}): Promise<void> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: 'ignore', ...options })
    child.on('error', () => resolve())
    child.on('exit', () => resolve())
  })
}
