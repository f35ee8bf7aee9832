import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoOf, isMeshError, MeshError } from '../../../protocol/errors.ts'
import { isRecord, object, optional } from '../../../protocol/json-shape.ts'
import { parseRoll, type Roll } from '../../roll/roll.ts'
import { isRollReport, type RollReport } from '../../roll/roll-report.ts'
import { writeFileAtomic } from '../../state/atomic-file.ts'
import { readStored } from '../../state/stored-document.ts'

/** A roll as it was last stored. */
interface KeptRoll {
  readonly roll: Roll
  /** Of a roll that has ended. */
  readonly report?: RollReport
}

const isKept = object({ roll: isRecord, report: optional(isRollReport) })

/** What an operator's machine keeps of the last roll of a group: a file in its state directory (docs/DURABILITY.md). */
export class RollFile {
  readonly #path: string

  constructor(directory: string, group: string) {
    // A group may have any name.
    const name = createHash('sha256').update(group).digest('hex').slice(0, 16)
    this.#path = join(directory, `roll-${name}.json`)
  }

  /** Errors: STATE_CORRUPT, FORMAT_NEWER. */
  async read(): Promise<KeptRoll | undefined> {
    try {
      const kept = readStored(this.#path, isKept, await readFile(this.#path))
      return { ...kept, roll: parseRoll(kept.roll) }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      if (!isMeshError(error, 'PROTOCOL_VIOLATION')) throw error
      throw new MeshError('STATE_CORRUPT', `${this.#path} is damaged`, { cause: error })
    }
  }

  /** Durable when it resolves. Errors: DISK_FULL, STATE_UNWRITABLE. */
  write(kept: KeptRoll): Promise<void> {
    return writeFileAtomic(this.#path, `${JSON.stringify(kept)}\n`, 0o600)
  }
}
