import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { digestOf, toHex } from '../../../protocol/digest.ts'
import { readDocument } from '../../../protocol/document.ts'
import { type ErrorCode, errnoOf, isMeshError, MeshError } from '../../../protocol/errors.ts'
import { type Check, natural, object, text, time } from '../../../protocol/json-shape.ts'
import { findHooks } from '../../hooks/find-hooks.ts'
import { HOOK_TIMEOUT_MS } from '../../hooks/limits.ts'
import { type HookOutcome, runHook } from '../../hooks/run-hook.ts'
import type { RestoreResult } from '../../restore/restore-result.ts'
import { storageError, writeFileAtomic } from '../../state/atomic-file.ts'
import { readStored } from '../../state/stored-document.ts'
import type { AgentEvent } from './events.ts'

/** Which hooks run, and for how long. */
export interface HookOptions {
  /** Directory with the executables. */
  readonly directory: string
  /** For each of them. @default HOOK_TIMEOUT_MS */
  readonly timeoutMs?: number
}

/** What became of the hooks of one restore. */
export interface HooksReport {
  readonly ran: readonly string[]
  readonly failed: readonly string[]
  /** Set if not all is well; what was to be done besides has been done all the same. */
  readonly failure?: { readonly code: ErrorCode; readonly message: string }
}

/** What {@link runMachineHooks} works with. */
interface MachineHooksOptions {
  readonly stateDir: string
  readonly hooks: HookOptions
  /** How a hook reaches the disk so that its writes are logged. */
  readonly place: { readonly MESH_DEVICE: string } | { readonly MESH_NBD_URI: string }
  /** Makes durable what the hooks have written. */
  readonly flush: () => Promise<void>
  readonly signal: AbortSignal
  readonly report: (event: AgentEvent) => void
}

/** `hooks.json`: the receipt (SHA-256 of its file, hexadecimal) for which all hooks have ended well. */
interface Completed {
  readonly receipt: string
  readonly at: string
}

const isCompleted: Check<Completed> = object({ receipt: text(MAX_TEXT_BYTES), at: time })
/** What hooks are told of a receipt. */
const isReceipt = object({ machine: text(MAX_TEXT_BYTES), image: text(MAX_TEXT_BYTES), release: natural() })

/** What the last restore that ended well did; hooks are told of it. */
export const receiptFile = (stateDir: string): string => resolve(stateDir, 'last-receipt.json')
const completedPath = (stateDir: string): string => join(stateDir, 'hooks.json')

/** Keeps the last receipt as a file, for hooks and for those that decide whether they are due. Errors: DISK_FULL, STATE_UNWRITABLE. */
export async function writeReceiptFile(stateDir: string, receipt: RestoreResult): Promise<void> {
  await writeFileAtomic(receiptFile(stateDir), `${JSON.stringify(receipt)}\n`)
}

/**
 * Runs the hooks in the order of their names, each also if one before it failed, unless they have all ended well for the last
 * receipt. That is recorded after the end of the last one, durably: if this process is killed before, all run again. Returns
 * undefined if nothing was due. Nothing that is wrong with a hook is thrown. Errors: DISK_FULL, DISK_IO, STATE_UNWRITABLE.
 */
export async function runMachineHooks(options: MachineHooksOptions): Promise<HooksReport | undefined> {
  const { stateDir, report, signal } = options
  const bytes = await readIfThere(receiptFile(stateDir))
  if (bytes === undefined) {
    report({ type: 'note', text: 'hooks run after the first restore' })
    return undefined
  }
  const receipt = toHex(digestOf(bytes))
  if ((await completedFor(stateDir)) === receipt) return undefined
  const outcomes: HookOutcome[] = []
  const done = (failure?: HooksReport['failure']): HooksReport => ({
    ran: outcomes.map(({ name }) => name),
    failed: outcomes.filter(({ ok }) => !ok).map(({ name }) => name),
    ...(failure === undefined ? {} : { failure }),
  })
  try {
    await runAll(options, describeReceipt(stateDir, bytes), outcomes)
  } catch (error) {
    if (!isMeshError(error, 'HOOK_UNSAFE', 'HOOK_FAILED')) throw error
    report({ type: 'warning', text: error.message })
    return done({ code: error.code, message: error.message })
  }
  if (signal.aborted) return done({ code: 'INTERRUPTED', message: 'the hooks were interrupted' })
  const { failed, ran } = done()
  if (failed.length > 0)
    return done({
      code: 'HOOK_FAILED',
      message: `${failed.length} of ${ran.length} hooks failed: ${failed.join(', ')}`,
    })
  await options.flush()
  const completed: Completed = { receipt, at: new Date().toISOString() }
  await writeFileAtomic(completedPath(stateDir), `${JSON.stringify(completed)}\n`)
  return done()
}

/** Errors: HOOK_UNSAFE, HOOK_FAILED, before any has run. */
async function runAll(options: MachineHooksOptions, facts: NodeJS.ProcessEnv, outcomes: HookOutcome[]): Promise<void> {
  const { hooks, place, report, signal } = options
  const found = await findHooks(hooks.directory)
  for (const { name, why } of found.skipped)
    report({ type: 'note', text: `${join(hooks.directory, name)} is not run: ${why}` })
  const env = { ...place, ...facts }
  for (const path of found.hooks) {
    if (signal.aborted) return
    const outcome = await runHook(path, { env, signal, timeoutMs: hooks.timeoutMs ?? HOOK_TIMEOUT_MS })
    outcomes.push(outcome)
    report({ type: 'hook', ...outcome })
  }
}

/** Errors: HOOK_FAILED, HOOK_UNSAFE, INTERRUPTED. */
export function assertHooksDone(report: HooksReport | undefined): void {
  if (report?.failure !== undefined)
    throw new MeshError(report.failure.code, report.failure.message, { detail: { failed: report.failed } })
}

/** Errors: HOOK_FAILED if the file is damaged, until the next restore writes it anew; FORMAT_NEWER. */
function describeReceipt(stateDir: string, bytes: Buffer): NodeJS.ProcessEnv {
  const path = receiptFile(stateDir)
  const { machine, image, release } = readDocument({ name: path, shape: isReceipt, fault: 'HOOK_FAILED' }, bytes)
  return { MESH_MACHINE: machine, MESH_IMAGE: image, MESH_RELEASE: String(release), MESH_RECEIPT: path }
}

/** A record that cannot be read is none: hooks run once too often rather than not at all. */
async function completedFor(stateDir: string): Promise<string | undefined> {
  const path = completedPath(stateDir)
  const bytes = await readIfThere(path)
  try {
    return bytes === undefined ? undefined : readStored(path, isCompleted, bytes).receipt
  } catch {
    return undefined
  }
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  return readFile(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw storageError(error, path)
  })
}
