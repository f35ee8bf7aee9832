import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { errnoOf, isMeshError } from '../../protocol/errors.ts'
import { type Check, list, natural, object, text } from '../../protocol/json-shape.ts'
import { storageError, writeFileAtomic } from '../state/atomic-file.ts'
import { readStored } from '../state/stored-document.ts'
import {
  COUNT_AGING,
  COUNT_FORGOTTEN,
  COUNT_MOST,
  COUNT_OF_ONE,
  DIRTIED_FILE_MAX_BYTES,
  DIRTIED_MAX_BLOCKS,
} from './limits.ts'

const FILE = 'dirtied'

interface Runs {
  readonly image: string
  readonly blockSize: number
  /** Neighbouring blocks with one score: the first, how many, the score. */
  readonly runs: readonly (readonly number[])[]
}

const isRuns: Check<Runs> = object({
  image: text(MAX_TEXT_BYTES),
  blockSize: natural(),
  runs: list(list(natural(), 3), DIRTIED_MAX_BLOCKS),
})

/**
 * How often, and how lately, sessions have dirtied each block of this machine's disk. A restore in which something was dirty takes a
 * sixteenth from every score and gives 4096 points to each block that was dirty: 4096 points are once, 65535 are nearly always.
 * Scores are of places on the disk, so they outlive a release.
 * A file that is missing, damaged, of a later version, or of another image counts as empty. Memory: about 50 bytes for each block.
 */
export class DirtiedCounts {
  readonly #directory: string
  readonly #image: Pick<Runs, 'image' | 'blockSize'>
  #scores: Map<number, number>

  private constructor(directory: string, image: Pick<Runs, 'image' | 'blockSize'>, scores: Map<number, number>) {
    this.#directory = directory
    this.#image = image
    this.#scores = scores
  }

  /** `directory`: that of the stage; it may be missing. */
  static async load(
    directory: string,
    { image, blockSize }: Pick<Runs, 'image' | 'blockSize'>,
  ): Promise<DirtiedCounts> {
    const kept = await readRuns(join(directory, FILE))
    const isOurs = kept?.image === image && kept.blockSize === blockSize
    return new DirtiedCounts(directory, { image, blockSize }, isOurs ? scoresOf(kept) : new Map())
  }

  /** How many blocks have a score. */
  get size(): number {
    return this.#scores.size
  }

  has(index: number): boolean {
    return this.#scores.has(index)
  }

  /** 0: not dirtied lately. */
  score(index: number): number {
    return this.#scores.get(index) ?? 0
  }

  /** Counts the blocks of one session. Others become older. The least of too many are forgotten. */
  count(dirtied: Iterable<number>): void {
    for (const [index, score] of this.#scores) this.#scores.set(index, Math.floor(score * COUNT_AGING))
    for (const index of dirtied) this.#scores.set(index, Math.min(COUNT_MOST, this.score(index) + COUNT_OF_ONE))
    const left = this.oftenestFirst().filter((index) => this.score(index) >= COUNT_FORGOTTEN)
    this.#scores = new Map(left.slice(0, DIRTIED_MAX_BLOCKS).map((index) => [index, this.score(index)]))
  }

  /** Blocks with a score, the highest first; of equal ones the first on the disk. */
  oftenestFirst(): number[] {
    return [...this.#scores].sort(([a, m], [b, n]) => n - m || a - b).map(([index]) => index)
  }

  /** Durable when it resolves. Errors: DISK_FULL, DISK_IO, STATE_UNWRITABLE. */
  async save(): Promise<void> {
    const runs: number[][] = []
    for (const [index, score] of [...this.#scores].sort(([a], [b]) => a - b)) {
      const last = runs.at(-1)
      if (last !== undefined && last[0]! + last[1]! === index && last[2] === score) last[1]!++
      else runs.push([index, 1, score])
    }
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    } catch (error) {
      throw storageError(error, this.#directory)
    }
    const path = join(this.#directory, FILE)
    await writeFileAtomic(path, `${JSON.stringify({ format: 1, ...this.#image, runs })}\n`, 0o600)
  }
}

/** Nothing that is wrong with the file is worth a failure: what it says only spares fetching. */
async function readRuns(path: string): Promise<Runs | undefined> {
  try {
    const bytes = await readFile(path)
    return bytes.byteLength > DIRTIED_FILE_MAX_BYTES ? undefined : readStored(path, isRuns, bytes)
  } catch (error) {
    if (!isMeshError(error) && errnoOf(error) === undefined) throw error
    return undefined
  }
}

function scoresOf({ runs }: Runs): Map<number, number> {
  const scores = new Map<number, number>()
  for (const [first = 0, count = 0, score = 0] of runs)
    for (let index = first; index < first + count && scores.size < DIRTIED_MAX_BLOCKS; index++) scores.set(index, score)
  return scores
}
