import { expect, it } from 'vitest'
import type { ListedReceipt } from '../../../../node/agent/receipts/receipt-archive.ts'
import { judgeTimes, listedAt } from '../../../../node/agent/receipts/receipt-time.ts'

it('tells two machines apart that had one name, one after the other', () => {
  const first = { ...receipt(9, '2026-11-20T10:00:00.000Z', '2026-11-20T10:01:00.000Z'), id: 'old-key' }
  const second = { ...receipt(10, '2026-11-10T10:00:00.000Z', '2026-11-10T10:01:00.000Z'), id: 'new-key' }
  expect(orderOf([first, second])).toEqual(['pc1 10', 'pc1 9'])
})

function receipt(number: number, startedAt: string, receivedAt?: string, machine = 'pc1'): ListedReceipt {
  const facts = { ms: 1, image: null, release: null, root: null, verified: false, failure: null, result: null }
  return { number, machine, startedAt, ...facts, ...(receivedAt === undefined ? {} : { receivedAt }) }
}

const orderOf = (receipts: readonly ListedReceipt[]): string[] =>
  judgeTimes(receipts).map(({ machine, number, clockWrong }) => `${machine} ${number}${clockWrong ? ' wrong' : ''}`)

it('lists a receipt by the time of its machine, unless that cannot be right, and then by when it came', () => {
  const all = [
    receipt(1, '2026-11-01T10:00:00.000Z', '2026-11-01T10:01:00.000Z'),
    // A machine that was alone for a week has a right clock all the same.
    receipt(2, '2026-11-02T10:00:00.000Z', '2026-11-09T10:01:00.000Z'),
    receipt(3, '1970-01-01T00:01:00.000Z', '2026-11-10T10:01:00.000Z'),
    receipt(4, '2030-01-01T00:00:00.000Z', '2026-11-11T10:01:00.000Z'),
    receipt(5, '2026-01-01T00:00:30.000Z', '2026-11-12T10:01:00.000Z'),
    receipt(6, '2026-11-13T10:00:00.000Z', '2026-11-13T10:01:00.000Z'),
    receipt(1, '2026-11-10T20:00:00.000Z', '2026-11-10T20:01:00.000Z', 'pc2'),
  ]
  expect(orderOf(all.toReversed())).toEqual([
    'pc1 1',
    'pc1 2',
    'pc1 3 wrong',
    'pc2 1',
    'pc1 4 wrong',
    'pc1 5 wrong',
    'pc1 6',
  ])
  expect(judgeTimes(all).map(listedAt)[2]).toBe(Date.parse('2026-11-10T10:01:00Z'))
})

it('does not know the time of one from before arrivals were kept', () => {
  const [judged] = judgeTimes([receipt(1, '1970-01-01T00:01:00.000Z')])
  expect(judged).toMatchObject({ clockWrong: true })
  expect(listedAt(judged!)).toBeUndefined()
  expect(orderOf([receipt(1, '2030-01-01T00:00:00.000Z'), receipt(2, '2026-11-01T00:00:00.000Z')])).toEqual([
    'pc1 2',
    'pc1 1',
  ])
})
