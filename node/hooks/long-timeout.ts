/** What a timer of Node takes at most, 24.8 days; a longer one fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** Calls `run` once after `ms`, which may be months. The function that is returned calls it off. */
export function longTimeout(run: () => void, ms: number): () => void {
  const endsAt = performance.now() + ms
  let timer: NodeJS.Timeout
  const wait = (): void => {
    const left = endsAt - performance.now()
    timer = left > MAX_TIMER_MS ? setTimeout(wait, MAX_TIMER_MS) : setTimeout(run, Math.max(0, left))
  }
  wait()
  return () => clearTimeout(timer)
}
