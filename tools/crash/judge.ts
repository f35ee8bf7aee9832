import type { BlockDevice } from '../../node/disk/block-device.ts'
import type { DiskFacts } from '../../node/disk/disk-facts.ts'
import { DurableBitmap } from '../../node/writelog/durable-bitmap.ts'
import type { LogState } from '../../node/writelog/write-log.ts'
import { toHex } from '../../protocol/digest.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import type { Model } from './model.ts'

interface Judgement {
  readonly state: LogState['state']
  /** What the log gets wrong, if anything. */
  readonly fault?: string
}

/**
 * Compares a disk, unit by unit, with what its log says of it. Units that differ from the release that the log
 * names must be dirty, unless the log is unknown. `storage` is a copy of the log, because opening a log changes it.
 */
export async function judge(
  disk: Buffer,
  storage: BlockDevice,
  facts: DiskFacts,
  unitSize: number,
  model: Model,
): Promise<Judgement> {
  // The stamp is left out: the log must be right without it.
  const blind: DiskFacts = { ...facts, since: async () => ({ agreed: [] }) }
  const log = new DurableBitmap({ storage, disk: blind, source: 'nbd', unitSize })
  const { state } = await log.open()
  if (state === 'unknown') return { state }
  const release = model.releases.find(({ manifest }) => toHex(manifest.root) === log.release.root)
  if (release === undefined) return { state, fault: `the log is of a release that does not exist: ${log.release.root}` }
  const dirty = await log.dirty()
  const missed = differing(disk, release.image, unitSize).filter((unit) => !dirty.has(unit))
  if (missed.length === 0) return { state }
  const which = `units ${missed.slice(0, 5).join(', ')}${missed.length > 5 ? ' …' : ''} of ${unitSize} bytes`
  return { state, fault: `${missed.length} missed: the log says ${state}, ${dirtyText(dirty)}, but not ${which}` }
}

/** Units in which a disk is not the image. */
export function differing(disk: Buffer, image: Buffer, unitSize: number): number[] {
  const found: number[] = []
  const step = unitSize * 64
  for (let at = 0; at < image.byteLength; at += step) {
    const end = Math.min(at + step, image.byteLength)
    if (disk.compare(image, at, end, at, end) === 0) continue
    for (let from = at; from < end; from += unitSize) {
      const to = Math.min(from + unitSize, end)
      if (disk.compare(image, from, to, from, to) !== 0) found.push(from / unitSize)
    }
  }
  return found
}

function dirtyText(dirty: RangeSet): string {
  return `${dirty.count} units dirty`
}
