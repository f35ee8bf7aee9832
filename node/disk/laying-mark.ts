/**
 * Stands at the beginning of a disk from the moment at which all that it held may be destroyed until its layout is complete. Such a
 * disk counts as blank.
 */
export const LAYING_MARK = Buffer.from('lab-mesh lays out this disk; what it held is gone.\n', 'latin1')

/** Whether a disk begins with {@link LAYING_MARK}. */
export function hasLayingMark(head: Buffer): boolean {
  return head.subarray(0, LAYING_MARK.byteLength).equals(LAYING_MARK)
}
