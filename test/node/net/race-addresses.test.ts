import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { DIAL_STAGGER_MS, HANDSHAKE_STAGGER_MS } from '../../../node/net/limits.ts'
import { AllFailed, raceAddresses } from '../../../node/net/race-addresses.ts'

/** Attempts that the test settles; when each began, and which were ended. */
class Attempts {
  readonly begun: string[] = []
  readonly ended: string[] = []
  readonly discarded: string[] = []
  readonly #open = new Map<
    string,
    { resolve: (value: string) => void; reject: (why: Error) => void; answered: () => void }
  >()

  race(addresses: readonly string[], signal = new AbortController().signal) {
    return raceAddresses<string>(addresses, {
      attempt: (address, stop, answered) => {
        this.begun.push(address)
        stop.addEventListener('abort', () => {
          this.ended.push(address)
          this.#open.get(address)?.reject(new Error('ended'))
        })
        return new Promise((resolve, reject) => this.#open.set(address, { resolve, reject, answered }))
      },
      discard: (value) => this.discarded.push(value),
      signal,
    })
  }

  succeed(address: string): void {
    this.#open.get(address)?.resolve(`connection ${address}`)
  }

  fail(address: string): void {
    this.#open.get(address)?.reject(new Error(`${address} refused`))
  }

  answer(address: string): void {
    this.#open.get(address)?.answered()
  }
}

describe('raceAddresses', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('reaches the one that works behind six that never answer, and ends those', async () => {
    const attempts = new Attempts()
    const addresses = ['a', 'b', 'c', 'd', 'e', 'f', 'works']
    const race = attempts.race(addresses)
    await vi.advanceTimersByTimeAsync(6 * DIAL_STAGGER_MS)
    expect(attempts.begun).toEqual(addresses)
    attempts.succeed('works')
    expect(await race).toMatchObject({ address: 'works', value: 'connection works' })
    expect(attempts.ended).toEqual(addresses.slice(0, 6))
  })

  it('goes on at once where an address fails', async () => {
    const attempts = new Attempts()
    const race = attempts.race(['a', 'b', 'c'])
    attempts.fail('a')
    await vi.advanceTimersByTimeAsync(0)
    expect(attempts.begun).toEqual(['a', 'b'])
    attempts.succeed('b')
    const { address, failures } = await race
    expect([address, [...failures.keys()]]).toEqual(['b', ['a']])
    await vi.advanceTimersByTimeAsync(10_000)
    expect(attempts.begun).toEqual(['a', 'b'])
  })

  it('waits longer where somebody answered, and never ends the winner', async () => {
    const attempts = new Attempts()
    const race = attempts.race(['a', 'b'])
    attempts.answer('a')
    await vi.advanceTimersByTimeAsync(HANDSHAKE_STAGGER_MS - 1)
    expect(attempts.begun).toEqual(['a'])
    attempts.succeed('a')
    await race
    await vi.advanceTimersByTimeAsync(10_000)
    expect([attempts.begun, attempts.ended]).toEqual([['a'], []])
  })

  it('tells why each failed, and ends with its signal', async () => {
    const attempts = new Attempts()
    const race = attempts.race(['a', 'b']).catch((error: unknown) => error)
    attempts.fail('a')
    await vi.advanceTimersByTimeAsync(0)
    attempts.fail('b')
    const error = await race
    expect(error).toBeInstanceOf(AllFailed)
    expect([...(error as AllFailed).failures.keys()]).toEqual(['a', 'b'])
    const stop = new AbortController()
    const other = attempts.race(['c', 'd'], stop.signal).catch((reason: unknown) => reason)
    stop.abort(new Error('too late'))
    expect(await other).toBeInstanceOf(AllFailed)
    expect(attempts.ended).toContain('c')
    expect(attempts.begun).not.toContain('d')
    expect(await attempts.race([]).catch((reason: unknown) => reason)).toBeInstanceOf(AllFailed)
  })

  it('gives back a connection that came second', async () => {
    const attempts = new Attempts()
    const race = attempts.race(['a', 'b'])
    await vi.advanceTimersByTimeAsync(DIAL_STAGGER_MS)
    attempts.succeed('b')
    attempts.succeed('a')
    expect((await race).address).toBe('b')
    await vi.advanceTimersByTimeAsync(0)
    expect(attempts.discarded).toEqual(['connection a'])
  })
})
