import { byteOffset } from '../../protocol/units.ts'
import type { BlockDevice } from './block-device.ts'
import { describeContent, readDiskContent, readerOf } from './disk-content.ts'
import { hasLayingMark, LAYING_MARK } from './laying-mark.ts'
import { BLANK_EDGE_BYTES, BLANK_SAMPLE_BYTES, BLANK_SAMPLES } from './limits.ts'

/**
 * What a disk holds, in words, such as `ext4` or `GPT with 3 partitions: vfat, ext4, swap`; undefined if it is blank as far as a look
 * tells: no partition table and no file system that is known, and zeros at its beginning, at its end, and at BLANK_SAMPLES places
 * between. So is one whose laying out was cut short. Data further apart than a 64th of the disk can be missed. Errors: DISK_IO, DISK_SHRUNK.
 */
export async function contentOf(device: BlockDevice): Promise<string | undefined> {
  if (hasLayingMark(await readerOf(device)(0, LAYING_MARK.byteLength))) return undefined
  const content = await readDiskContent(device)
  if (content.table !== undefined || content.fileSystems.length > 0) return describeContent(content)
  const edge = Math.min(BLANK_EDGE_BYTES, device.size)
  const places = [
    { at: 0, length: edge },
    { at: device.size - edge, length: edge },
    ...Array.from({ length: BLANK_SAMPLES }, (_, i) => sampleAt(device.size, i)),
  ]
  for (const { at, length } of places) {
    const buffer = Buffer.alloc(length)
    await device.read(byteOffset(at), buffer)
    if (buffer.some((byte) => byte !== 0)) return 'data of a kind that is not known'
  }
  return undefined
}

/** One of the places, on a boundary of 4 KiB. */
function sampleAt(size: number, index: number): { readonly at: number; readonly length: number } {
  const at = Math.floor((size * index) / BLANK_SAMPLES / BLANK_SAMPLE_BYTES) * BLANK_SAMPLE_BYTES
  return { at, length: Math.min(BLANK_SAMPLE_BYTES, size - at) }
}
