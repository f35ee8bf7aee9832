import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { OtherDisks } from './other-disks.ts'

interface ContentParts {
  readonly machine: Machine
  readonly report: (event: AgentEvent) => void
}

/** The other managed disks of this computer, until the stack ends; undefined if none were named. */
export async function openBeside(
  { blockSize }: VerifiedManifest,
  { machine, report }: ContentParts,
  stack: AsyncDisposableStack,
): Promise<OtherDisks | undefined> {
  const directories = (machine.state.machine ?? machine.config).beside
  return directories && OtherDisks.open(directories, blockSize, report, stack)
}
