import { describe, expect, it } from 'vitest'
import { LINGER_QUIET_MS } from '../../../../node/agent/offer/limits.ts'
import { linger } from '../../../../node/agent/offer/linger.ts'
import type { VerifiedManifest } from '../../../../node/trust/verified-manifest.ts'
import { Bitmap } from '../../../../protocol/bitmap.ts'
import { makeManifest } from '../../../support/site.ts'

const manifest = makeManifest() as VerifiedManifest
const never = new AbortController().signal

/** What the others do; `missing` blocks of the image are not held by the one that is known. */
class Others {
  bytes = 0
  clients = 0
  missing = 0

  get node(): Parameters<typeof linger>[0] {
    const serving = () => ({ bytes: this.bytes, bytesPerSecond: 0, clients: this.clients, waiting: 0 })
    const holders = () => {
      const held = new Bitmap(16)
      held.setRange(this.missing, 16)
      return [{ peerId: 'other', held }]
    }
    return { serving, swarm: { holders } as unknown as Parameters<typeof linger>[0]['swarm'] }
  }
}

/** Milliseconds until it ended, while `change` is called now and then. */
async function lingers(others: Others, ms: number, change: () => void, signal = never): Promise<number> {
  const begun = performance.now()
  const timer = setInterval(change, 50)
  await linger(others.node, manifest, { ms, signal }).finally(() => clearInterval(timer))
  return performance.now() - begun
}

describe('linger', () => {
  it('ends when nobody has wanted anything for a while, though a machine in use lacks blocks', async () => {
    const others = new Others()
    others.missing = 5
    const took = await lingers(others, 600_000, () => undefined)
    expect(took).toBeGreaterThanOrEqual(LINGER_QUIET_MS - 1)
  })

  it('goes on beyond that while others fetch, wait for an answer, or get further', async () => {
    const change: ((others: Others) => void)[] = [
      (others) => {
        others.bytes++
      },
      (others) => {
        others.clients = 1
      },
      (others) => {
        others.missing = others.missing === 0 ? 12 : others.missing - 1
      },
    ]
    const took = await Promise.all(
      change.map((one) => {
        const others = new Others()
        return lingers(others, LINGER_QUIET_MS + 1000, () => one(others))
      }),
    )
    // Only the time ends it.
    for (const ms of took) expect(ms).toBeGreaterThanOrEqual(LINGER_QUIET_MS + 999)
  })

  it('ends at once when it is told to', async () => {
    const stop = new AbortController()
    const others = new Others()
    let changes = 0
    const change = (): void => {
      others.bytes++
      if (++changes === 3) stop.abort()
    }
    await lingers(others, 600_000, change, stop.signal)
    expect(changes).toBeLessThan((LINGER_QUIET_MS / 50) * 2)
  })
})
