import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { OtherDisks } from './other-disks.ts'

interface ContentParts {
  readonly machine: Machine
  readonly report: (event: AgentEvent) => void
}

/** The other managed disks of this computer, until the stack ends; undefined if there are none. */
export async function openBeside(
  { blockSize }: VerifiedManifest,
  { machine, report }: ContentParts,
  stack: AsyncDisposableStack,
): Promise<OtherDisks | undefined> {
  const { state, home } = machine
  // A further partition has the machine’s first one beside it.
  const directories = [...((state.machine ?? machine.config).beside ?? []), ...(home === state ? [] : [home.directory])]
  return directories.length === 0 ? undefined : OtherDisks.open(directories, blockSize, report, stack)
}
