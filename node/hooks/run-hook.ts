/**
 * The folder node/hooks runs the programs that a technician wants to run after a restore.
 * - `find-hooks` lists the programs of a directory, `trusted-path` refuses those that others could have changed.
 * - `run-hook` runs one of them, with a limit of time, and ends whatever it leaves behind.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { HOOK_GRACE_MS, HOOK_OUTPUT_BYTES, SHEBANG_BYTES } from './limits.ts'
import { longTimeout } from './long-timeout.ts'

/** How one hook ended. */
export interface HookOutcome {
  readonly name: string
  readonly ok: boolean
  /** Why the hook failed: `exit code 3`, `no end within 60 s`, …; empty if it succeeded. */
  readonly why: string
  readonly seconds: number
  /** The beginning of its output, both streams as they came. */
  readonly output: string
}

interface RunHookOptions {
  readonly env: NodeJS.ProcessEnv
  readonly timeoutMs: number
  /** Aborting it ends the hook. */
  readonly signal: AbortSignal
}

/**
 * Runs one hook, without arguments, to its end. Processes that the hook has started and left behind are killed: their
 * writes belong to the hook.
 */
export async function runHook(path: string, options: RunHookOptions): Promise<HookOutcome> {
  const startedAt = performance.now()
  const child = spawn(path, [], {
    cwd: '/',
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    // The hook gets a process group of its own, so that all of it can be ended.
    detached: true,
  })
  const output = gather(child.stdout, child.stderr)
  const closed = once(child, 'close').catch(() => undefined)
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  let cut = ''
  const end = (why: string): void => {
    if (cut !== '') return
    cut = why
    signalGroup(child.pid, 'SIGTERM')
    grace = setTimeout(() => signalGroup(child.pid, 'SIGKILL'), HOOK_GRACE_MS)
  }
  let grace: NodeJS.Timeout | undefined
  const callOff = longTimeout(() => end(`no end within ${options.timeoutMs / 1000} s`), options.timeoutMs)
  const stop = (): void => end('interrupted')
  options.signal.addEventListener('abort', stop, { once: true })
  if (options.signal.aborted) stop()
  let why: string
  try {
    const [code, signal] = await ended
    why = cut !== '' ? cut : signal !== null ? `ended by ${signal}` : code === 0 ? '' : `exit code ${code}`
  } catch (error) {
    why = (await lineEndFault(path)) ?? (error instanceof Error ? error.message : String(error))
  } finally {
    callOff()
    clearTimeout(grace)
    options.signal.removeEventListener('abort', stop)
    signalGroup(child.pid, 'SIGKILL')
  }
  const seconds = (performance.now() - startedAt) / 1000
  // The last output may still be on its way. A process that has left the group may hold the outputs open for ever, so
  // the wait is limited.
  await Promise.race([closed, sleep(HOOK_GRACE_MS, undefined, { ref: false })])
  for (const stream of [child.stdout, child.stderr]) stream.destroy()
  return { name: basename(path), ok: why === '', why, seconds, output: output() }
}

/**
 * The kernel looks for the interpreter of `#!/bin/sh\\r` under a name that ends with the carriage return, and says ENOENT
 * of the script. Undefined: the first line is no such line.
 */
async function lineEndFault(path: string): Promise<string | undefined> {
  const file = await open(path).catch(() => undefined)
  if (file === undefined) return undefined
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(SHEBANG_BYTES), 0, SHEBANG_BYTES, 0)
    const [first = ''] = buffer.toString('latin1', 0, bytesRead).split('\n')
    if (!first.startsWith('#!') || !first.endsWith('\r')) return undefined
    return 'the file has Windows line ends (CR LF); sed -i "s/\\r$//" on it mends that'
  } catch {
    return undefined
  } finally {
    await file.close()
  }
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, signal)
  } catch {
    // The group has ended already.
  }
}

/** Reads everything, so that a talkative hook goes on, and keeps only the beginning. */
function gather(...streams: readonly Readable[]): () => string {
  const kept: Buffer[] = []
  let room = HOOK_OUTPUT_BYTES
  for (const stream of streams) {
    stream.on('data', (chunk: Buffer) => {
      if (room > 0) kept.push(chunk.subarray(0, room))
      room -= chunk.byteLength
    })
  }
  return () => Buffer.concat(kept).toString().trimEnd()
}
