import { FAR_WINDOW_BYTES, FAR_WINDOW_MIN_ITEMS } from './limits.ts'

/** Items that one of `machines` may have on their way over the uplink, from all far peers together: the machines share it. */
export function farWindow(itemBytes: number, machines: number): number {
  return Math.max(FAR_WINDOW_MIN_ITEMS, Math.floor(FAR_WINDOW_BYTES / itemBytes / machines))
}
