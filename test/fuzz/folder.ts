import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

let made: string | undefined

/** A folder for this process, until {@link removeFolder}. */
export function folder(): string {
  made ??= mkdtempSync(join(tmpdir(), 'mesh-fuzz-'))
  return made
}

/** Removes what the targets have written. */
export function removeFolder(): void {
  if (made !== undefined) rmSync(made, { recursive: true, force: true })
  made = undefined
}
