import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { kindOf, type RunKind } from './crash-run.ts'
import type { MachineRecord } from './simulated-machine.ts'
import type { WrongOrder } from './wrong-orders.ts'

interface CampaignOptions {
  readonly seed: number
  /** Numbers of the runs to make. */
  readonly runs: readonly number[]
  /** Processes at a time. */
  readonly jobs: number
  /** The rule that the machines break on purpose. */
  readonly order?: WrongOrder | undefined
  /** Failed runs after which the campaign ends. */
  readonly mostFailures: number
  readonly signal: AbortSignal
  readonly progress: (result: CampaignResult) => void
}

/** What a campaign has shown so far. */
export interface CampaignResult {
  runs: number
  readonly kinds: Map<RunKind, number>
  /** How often a cut hit each operation. */
  readonly cuts: Map<string, number>
  /** How often the log said each state after a cut. */
  readonly states: Map<string, number>
  readonly failed: { readonly run: number; readonly faults: readonly string[] }[]
}

const WORKER = join(import.meta.dirname, 'crash-worker.ts')

/** Makes the runs of a campaign in several processes. Fails if a process ends by itself. */
export async function campaign(options: CampaignOptions): Promise<CampaignResult> {
  const result: CampaignResult = { runs: 0, kinds: new Map(), cuts: new Map(), states: new Map(), failed: [] }
  const waiting = [...options.runs].reverse()
  const workers = Array.from({ length: Math.min(options.jobs, waiting.length) }, async () => {
    const args = [String(options.seed), ...(options.order === undefined ? [] : [options.order])]
    const child = fork(WORKER, args, { execArgv: [] })
    const ended = once(child, 'exit')
    try {
      await message(child)
      for (;;) {
        const enough = options.signal.aborted || result.failed.length >= options.mostFailures
        const run = enough ? undefined : waiting.pop()
        if (run === undefined) break
        child.send(run)
        const { record } = (await message(child)) as { record: MachineRecord }
        count(result, run, record, options.order)
        options.progress(result)
      }
    } finally {
      if (child.connected) child.disconnect()
      await ended
    }
  })
  const failure = (await Promise.allSettled(workers)).find((worker) => worker.status === 'rejected')
  if (failure !== undefined) throw failure.reason
  return result
}

async function message(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null, signal: string | null): void =>
      reject(new Error(`a process of the campaign ended with ${code ?? signal}`))
    child.once('exit', onExit)
    child.once('message', (received) => {
      child.off('exit', onExit)
      resolve(received)
    })
  })
}

function count(result: CampaignResult, run: number, record: MachineRecord, order: WrongOrder | undefined): void {
  const add = <Key>(to: Map<Key, number>, key: Key): void => void to.set(key, (to.get(key) ?? 0) + 1)
  result.runs++
  add(result.kinds, kindOf(run, order))
  for (const cut of record.cuts) add(result.cuts, cut)
  for (const state of record.states) add(result.states, state)
  if (record.faults.length > 0) result.failed.push({ run, faults: record.faults })
}
