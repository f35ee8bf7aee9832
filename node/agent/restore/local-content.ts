import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { Stage } from '../../store/stage.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { readDiskState } from '../machine/disk-state.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { OtherDisks } from './other-disks.ts'

interface ContentParts {
  readonly machine: Machine
  readonly report: (event: AgentEvent) => void
}

/**
 * Opens the stage until the stack ends. Undefined if there is none, or if it is empty and the disk has this release already.
 * A stage that cannot be used is reported: a restore does as well without it.
 */
export async function openStage(
  { root, blockSize }: VerifiedManifest,
  { machine, report }: ContentParts,
  stack: AsyncDisposableStack,
): Promise<Stage | undefined> {
  try {
    const stage = await Stage.openIfThere(machine.state.path('stage'), blockSize)
    if (stage === undefined) return undefined
    stack.adopt(stage, (it) => it.close())
    const onDisk = await readDiskState(machine.state)
    return stage.count > 0 || onDisk?.root !== toHex(root) ? stage : undefined
  } catch (error) {
    if (!isMeshError(error)) throw error
    report({ type: 'warning', text: `what was staged cannot be used: ${error.message}` })
    return undefined
  }
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

/** Empties the stage once the disk durably holds the release. A stage that is kept for a newer release is left alone. */
export async function emptyStage(manifest: VerifiedManifest, { machine, report }: ContentParts): Promise<void> {
  if (machine.trust.view().newest(manifest.image)?.release !== manifest.release) return
  try {
    const stage = await Stage.openIfThere(machine.state.path('stage'), manifest.blockSize)
    if (stage === undefined) return
    await (stage.count > 0 ? stage.retain(() => false) : undefined)
    await stage.close()
  } catch (error) {
    if (!isMeshError(error)) throw error
    report({ type: 'warning', text: `the stage was not emptied: ${error.message}` })
  }
}
