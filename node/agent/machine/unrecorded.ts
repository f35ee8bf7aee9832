import { isMeshError } from '../../../protocol/errors.ts'
import type { AgentEvent } from './events.ts'

/**
 * For what is recorded when a disk is restored already: a state directory that is full or failing is told of, and does not make a
 * failure of the restore. `what`: such as `the receipt`. The next restore scans if it lacks what was not recorded.
 */
export function unrecorded(what: string, report: (event: AgentEvent) => void): (error: unknown) => void {
  return (error) => {
    if (!isMeshError(error, 'DISK_FULL', 'STATE_UNWRITABLE', 'DISK_IO', 'SYSTEM_LIMIT')) throw error
    report({ type: 'warning', text: `the disk is restored; ${what} is not recorded: ${error.message}` })
  }
}
