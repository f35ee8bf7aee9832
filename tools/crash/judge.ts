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
 * Compares a disk, granule by granule, with what its log says of it. Granules that differ from the release that the log
 * names must be dirty, unless the log is unknown. `storage` is a copy of the log, because opening a log changes it.
 */
export async function judge(
  disk: Buffer,
  storage: BlockDevice,
  facts: DiskFacts,
  granuleSize: number,
  model: Model,
): Promise<Judgement> {
  // The stamp is left out: the log must be right without it.
  const blind: DiskFacts = { ...facts, since: async () => ({ agreed: [] }) }
  const log = new DurableBitmap({ storage, disk: blind, source: 'nbd', granuleSize })
  const { state } = await log.open()
  if (state === 'unknown') return { state }
  const release = model.releases.find(({ manifest }) => toHex(manifest.root) === log.release.root)
  if (release === undefined) return { state, fault: `the log is of a release that does not exist: ${log.release.root}` }
  const dirty = await log.dirty()
  const missed = differing(disk, release.image, granuleSize).filter((granule) => !dirty.has(granule))
  if (missed.length === 0) return { state }
  const which = `granules ${missed.slice(0, 5).join(', ')}${missed.length > 5 ? ' …' : ''} of ${granuleSize} bytes`
  return { state, fault: `${missed.length} missed: the log says ${state}, ${dirtyText(dirty)}, but not ${which}` }
}

/** Granules in which a disk is not the image. */
export function differing(disk: Buffer, image: Buffer, granuleSize: number): number[] {
  const found: number[] = []
  const step = granuleSize * 64
  for (let at = 0; at < image.byteLength; at += step) {
    const end = Math.min(at + step, image.byteLength)
    if (disk.compare(image, at, end, at, end) === 0) continue
    for (let from = at; from < end; from += granuleSize) {
      const to = Math.min(from + granuleSize, end)
      if (disk.compare(image, from, to, from, to) !== 0) found.push(from / granuleSize)
    }
  }
  return found
}

function dirtyText(dirty: RangeSet): string {
  return `${dirty.count} granules dirty`
}
