import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoOf, isMeshError, MeshError } from '../../../protocol/errors.ts'
import { parseRoll, type Roll } from '../../roll/roll.ts'
import type { RollReport } from '../../roll/roll-report.ts'
import { writeFileAtomic } from '../../state/atomic-file.ts'

/** A roll as it was last stored. */
interface KeptRoll {
  readonly roll: Roll
  /** Of a roll that has ended. */
  readonly report?: RollReport
}

/** What an operator's machine keeps of the last roll of a group: a file in its state directory (docs/DURABILITY.md). */
export class RollFile {
  readonly #path: string

  constructor(directory: string, group: string) {
    // A group may have any name.
    const name = createHash('sha256').update(group).digest('hex').slice(0, 16)
    this.#path = join(directory, `roll-${name}.json`)
  }

  /** Errors: STATE_CORRUPT. */
  async read(): Promise<KeptRoll | undefined> {
    let text: string
    try {
      text = await readFile(this.#path, 'utf8')
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
    try {
      const kept = JSON.parse(text) as KeptRoll
      return { ...kept, roll: parseRoll(kept.roll) }
    } catch (cause) {
      if (!(cause instanceof SyntaxError || isMeshError(cause))) throw cause
      throw new MeshError('STATE_CORRUPT', `${this.#path} is damaged`, { cause })
    }
  }

  /** Durable when it resolves. Errors: DISK_FULL, STATE_UNWRITABLE. */
  write(kept: KeptRoll): Promise<void> {
    return writeFileAtomic(this.#path, `${JSON.stringify(kept)}\n`, 0o600)
  }
}
