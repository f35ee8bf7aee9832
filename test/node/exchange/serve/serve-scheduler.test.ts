import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { SERVE_TURN_BYTES, SERVE_TURN_MIN_BYTES, SERVE_TURN_MS } from '../../../../node/exchange/serve/limits.ts'
import { type ServeJob, ServeScheduler } from '../../../../node/exchange/serve/serve-scheduler.ts'

const BLOCK = 64 * 1024

/** A scheduler over a disk that takes `msPerBlock`, by a clock of its own; what each turn served, in bytes. */
async function served(msPerBlock: (turn: number) => number, blocks: number): Promise<number[]> {
  const turns: number[] = []
  let now = 0
  const scheduler = new ServeScheduler<ServeJob>({
    now: () => now,
    cpuMs: () => 0,
    serve: async (jobs) => {
      now += jobs.length * msPerBlock(turns.length)
      turns.push(jobs.length * BLOCK)
      for (const job of jobs) scheduler.taken(job, job.cost)
    },
  })
  for (let i = 0; i < blocks; i++) scheduler.push({ client: `pc${i % 40}`, cost: BLOCK, size: BLOCK })
  while (turns.reduce((sum, bytes) => sum + bytes, 0) < blocks * BLOCK) await nextTurn()
  scheduler.close()
  return turns
}

describe('a turn of serving', () => {
  it('is as long as it may be on a disk that is fast', async () => {
    const turns = await served(() => 0.1, 400)
    expect(turns.slice(0, -1).every((bytes) => bytes === SERVE_TURN_BYTES)).toBe(true)
  })

  it('becomes short on a disk that is slow, so that nobody waits long for others', async () => {
    const turns = await served(() => 20, 400)
    expect(turns.at(-2)).toBe(SERVE_TURN_MIN_BYTES)
    // Once it is as short as it can be it stays within the bound, or at the least that is read at all.
    const settled = turns.slice(6)
    expect(settled.every((bytes) => bytes <= Math.max(SERVE_TURN_MIN_BYTES, (SERVE_TURN_MS / 20) * BLOCK * 2))).toBe(
      true,
    )
  })

  it('becomes long again with the disk', async () => {
    const turns = await served((turn) => (turn < 8 ? 20 : 0.1), 800)
    expect(turns[7]).toBe(SERVE_TURN_MIN_BYTES)
    expect(turns).toContain(SERVE_TURN_BYTES)
    expect(turns.lastIndexOf(SERVE_TURN_BYTES)).toBeGreaterThan(8)
  })
})
