import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { toHex } from '../../protocol/digest.ts'
import { errnoOf } from '../../protocol/errors.ts'
import { object, optional, text, truth, which } from '../../protocol/json-shape.ts'
import { storageError, writeFileAtomic } from '../state/atomic-file.ts'
import { readStored } from '../state/stored-document.ts'
import { TERM_BYTES } from './limits.ts'

/**
 * In whose term a master signs. A master that was put back from a backup, or that was said to be the one that stays, begins a term of
 * its own. The term is signed with the newest metadata, so that the master before notices that it is one no longer.
 */
export interface MasterTerm {
  /** Hexadecimal; absent: the term of the master that made the site. */
  readonly term?: string | undefined
  /** The term has not begun yet: nothing was signed in it. */
  readonly claims: boolean
}

const isTerm = which(text(2 * TERM_BYTES), (it) => /^[0-9a-f]{32}$/.test(it))
const isMasterTerm = object({ term: optional(isTerm), claims: truth })

const fileOf = (keysDir: string): string => join(keysDir, 'term.json')

/** Reads the term from the folder of the keys. Errors: STATE_CORRUPT. */
export async function readTerm(keysDir: string): Promise<MasterTerm> {
  const path = fileOf(keysDir)
  const json = await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw storageError(error, path)
  })
  return json === undefined ? { claims: false } : readStored(path, isMasterTerm, json)
}

/** Keeps the term, durably. Errors: DISK_FULL, STATE_UNWRITABLE. */
export function writeTerm(keysDir: string, term: MasterTerm): Promise<void> {
  return writeFileAtomic(fileOf(keysDir), `${JSON.stringify(term)}\n`, 0o600)
}

/** A new term, which has not begun. */
export function newTerm(): MasterTerm {
  return { term: toHex(randomBytes(TERM_BYTES)), claims: true }
}
