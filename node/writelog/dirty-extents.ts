import { RangeSet, type Run } from '../../protocol/ranges.ts'
import { NbdClient } from '../nbd/nbd-client.ts'
import { STATE_DIRTY } from '../nbd/nbd-protocol.ts'

/** The content of a dirty bitmap of QEMU. */
export interface DirtyExtents {
  /** Size of the export, in bytes. */
  readonly size: number
  /** Bytes that were written, in units of the bitmap's granularity. */
  readonly bytes: RangeSet
}

/**
 * Reads a dirty bitmap through an NBD export of QEMU that publishes it: `qemu-nbd --bitmap`, or `block-export-add` with
 * `bitmaps` of a running machine (https://www.qemu.org/docs/master/interop/nbd.html). For a running machine the answer
 * is what was written up to now. Errors: those of {@link NbdClient}; NBD_UNSUITABLE if the bitmap is not published.
 */
export async function readDirtyExtents(uri: string, bitmap: string): Promise<DirtyExtents> {
  const context = `qemu:dirty-bitmap:${bitmap}`
  const client = await NbdClient.connect(uri, { contexts: [context] })
  try {
    const runs: Run[] = []
    for await (const { offset, length, flags } of client.blockStatus(context, 0, client.size))
      if ((flags & STATE_DIRTY) !== 0) runs.push([offset, offset + length])
    return { size: client.size, bytes: RangeSet.from(runs) }
  } finally {
    await client.close()
  }
}
