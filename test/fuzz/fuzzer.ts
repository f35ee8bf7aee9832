import { setImmediate as turn } from 'node:timers/promises'
import { getHeapStatistics } from 'node:v8'
import { isMeshError } from '../../protocol/errors.ts'
import { Random } from '../../tools/lab/random.ts'
import type { Coverage } from './coverage.ts'
import { mutate } from './mutate.ts'
import type { Target } from './target.ts'

/** An input that breaks what its target promises. */
export interface Finding {
  readonly target: string
  readonly input: Buffer
  readonly why: string
}

/** What a run of one target did. */
export interface FuzzResult {
  readonly inputs: number
  readonly corpus: number
  /** Inputs that the decoder took. */
  readonly accepted: number
  readonly findings: readonly Finding[]
}

interface FuzzOptions {
  readonly seed: number
  /** Goes on while it says so; it is told how many inputs were tried. */
  readonly more: (inputs: number) => boolean
  /** Inputs that reach new code become seeds. Without it only the inputs that are accepted do. */
  readonly coverage?: Coverage
  /** Judge time and memory, too. */
  readonly costs?: boolean
}

/** An input of at most 16 KiB may take so long, and so much memory. */
const MOST_MS = 500
const MOST_BYTES = 48 * 1024 * 1024
/** Coverage is looked at after so many inputs: it costs more than most of them. */
const BATCH = 64
const MAX_CORPUS = 4096
/** Findings of one kind are told once, and after so many kinds a run ends. */
const MAX_FINDINGS = 16

/** Tries inputs on a target: its seeds first, then mutations of them. The same seed without coverage gives the same inputs. */
export async function fuzz(target: Target, { seed, more, coverage, costs = false }: FuzzOptions): Promise<FuzzResult> {
  const random = new Random(seed)
  const corpus: Buffer[] = (await target.seeds()).map((bytes) => Buffer.from(bytes))
  const findings = new Map<string, Finding>()
  let [inputs, accepted] = [0, 0]
  const tryOne = async (input: Buffer): Promise<boolean> => {
    inputs++
    const { taken, why } = await judge(target, input, costs)
    if (why !== undefined && findings.size < MAX_FINDINGS && !findings.has(kindOf(why)))
      findings.set(kindOf(why), { target: target.name, input, why })
    if (taken) accepted++
    return taken
  }
  for (const input of [...corpus]) await tryOne(input)
  if (accepted < corpus.length && target.takesSeeds !== false)
    findings.set('seeds', {
      target: target.name,
      input: Buffer.alloc(0),
      why: `${corpus.length - accepted} seeds are refused`,
    })
  await coverage?.fresh()
  while (more(inputs) && findings.size < MAX_FINDINGS) {
    const batch = Array.from({ length: BATCH }, () => mutate(pick(corpus, random), pick(corpus, random), random))
    const taken: Buffer[] = []
    for (const input of batch) if (await tryOne(input)) taken.push(input)
    const kept = coverage === undefined ? taken.slice(0, 1) : await reachingNew(batch, coverage, tryOne)
    if (corpus.length < MAX_CORPUS) corpus.push(...kept)
    await turn()
  }
  return { inputs, accepted, corpus: corpus.length, findings: [...findings.values()] }
}

/** The inputs of a batch after which code has run that had not. They are tried once more, one by one. */
async function reachingNew(
  batch: readonly Buffer[],
  coverage: Coverage,
  tryOne: (input: Buffer) => Promise<boolean>,
): Promise<Buffer[]> {
  if ((await coverage.fresh()) === 0) return []
  // Whichever input it was: all are near to it, and the code that they reach is known from now on.
  const kept: Buffer[] = []
  for (const input of batch) if (await tryOne(input)) kept.push(input)
  return kept.length > 0 ? kept.slice(0, 4) : [batch[0]!]
}

function pick(corpus: readonly Buffer[], random: Random): Buffer {
  return corpus[random.below(corpus.length)] ?? Buffer.alloc(0)
}

/** Whether a decoder took an input, and which promise was broken. */
async function judge(target: Target, input: Buffer, costs: boolean): Promise<{ taken: boolean; why?: string }> {
  const before = costs ? usedBytes() : 0
  const at = costs ? performance.now() : 0
  const outcome = await outcomeOf(target, input)
  if (!costs || outcome.why !== undefined) return outcome
  if (usedBytes() - before > MOST_BYTES) return { ...outcome, why: `takes more than ${MOST_BYTES / 2 ** 20} MiB` }
  if (performance.now() - at <= MOST_MS || !(await isSlow(target, input))) return outcome
  return { ...outcome, why: `takes more than ${MOST_MS} ms` }
}

async function outcomeOf(target: Target, input: Buffer): Promise<{ taken: boolean; why?: string }> {
  try {
    return { taken: (await target.run(input)) !== false }
  } catch (error) {
    if (isMeshError(error) && target.errors.includes(error.code)) return { taken: false }
    const text = error instanceof Error ? `${error.name}: ${error.message}\n${error.stack ?? ''}` : String(error)
    return { taken: false, why: isMeshError(error) ? `${error.code} is none of its errors: ${text}` : text }
  }
}

/** Tried again: the machine may have had something else to do. */
async function isSlow(target: Target, input: Buffer): Promise<boolean> {
  for (let i = 0; i < 3; i++) {
    const { user } = process.cpuUsage()
    await outcomeOf(target, input)
    if (process.cpuUsage().user - user < MOST_MS * 1000) return false
  }
  return true
}

function usedBytes(): number {
  const { used_heap_size, external_memory } = getHeapStatistics()
  return used_heap_size + external_memory
}

/** Numbers and quoted pieces differ from one input to the next. */
function kindOf(why: string): string {
  return why
    .split('\n')
    .slice(0, 3)
    .join('\n')
    .replace(/\d+|"[^"]*"/g, '#')
    .slice(0, 300)
}
