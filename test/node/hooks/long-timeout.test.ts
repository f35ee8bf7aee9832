import { afterEach, expect, it, vi } from 'vitest'
import { longTimeout } from '../../../node/hooks/long-timeout.ts'

const DAY_MS = 86_400_000

afterEach(() => {
  vi.useRealTimers()
})

it('waits 30 days, which one timer cannot, and not longer', () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  const run = vi.fn()
  longTimeout(run, 30 * DAY_MS)
  vi.advanceTimersByTime(30 * DAY_MS - 1)
  expect(run).not.toHaveBeenCalled()
  vi.advanceTimersByTime(1)
  expect(run).toHaveBeenCalledTimes(1)
})

it('is called off, in the first of its timers and in the last', () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  const run = vi.fn()
  longTimeout(run, 30 * DAY_MS)()
  const stop = longTimeout(run, 30 * DAY_MS)
  vi.advanceTimersByTime(29 * DAY_MS)
  stop()
  vi.advanceTimersByTime(2 * DAY_MS)
  expect(run).not.toHaveBeenCalled()
  expect(vi.getTimerCount()).toBe(0)
})
