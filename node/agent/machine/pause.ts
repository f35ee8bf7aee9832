import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves after `ms` (at once if that is nothing), or when the signal aborts. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms > 0 && !signal.aborted) await sleep(ms, undefined, { signal }).catch(() => undefined)
}
