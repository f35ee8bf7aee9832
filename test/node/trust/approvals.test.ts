import { describe, expect, it } from 'vitest'
import { type Approval, ApprovalBook, type ApprovalKey, type ApprovalShelf } from '../../../node/trust/approvals.ts'
import { MAX_MEMBERS } from '../../../protocol/constants.ts'
import { codeOf } from '../../support/error-code.ts'

const MAC = '02:00:5e:10:00:01'

function shelf(map = new Map<string, Approval>()): ApprovalShelf {
  return {
    iterator: async function* () {
      yield* map
    },
    changeDurable: async (puts, dels) => {
      for (const key of dels) map.delete(key)
      for (const [key, value] of puts) map.set(key, value)
    },
  }
}

const yes = (at: number, over: Partial<Approval> = {}): Approval => ({
  decision: 'approve',
  at,
  expiresAt: at + 1000,
  ...over,
})

describe('ApprovalBook', () => {
  it('finds what was decided about a key before what about a network card, and that before all, for as long as it holds', async () => {
    let now = 5000
    const map = new Map<string, Approval>()
    const book = await ApprovalBook.load(shelf(map), { now: () => now })
    expect(book.find('a', [MAC])).toBeUndefined()
    await book.put([['all', yes(now, { expiresAt: 9000 })]])
    await book.put([[`mac:${MAC}`, yes(now, { name: 'pc1' })]])
    await book.put([['id:a', yes(now, { decision: 'refuse' })]])
    expect(book.find('a', [MAC])).toMatchObject({ key: 'id:a', approval: { decision: 'refuse' } })
    expect(book.find('b', ['02:00:00:00:00:00', MAC])).toMatchObject({ key: `mac:${MAC}`, approval: { name: 'pc1' } })
    expect(book.find('b', [])).toMatchObject({ key: 'all' })
    expect(book.standing().map(([key]) => key)).toEqual(['all', `mac:${MAC}`])
    // Remembered over a restart; what has expired is forgotten, also on the disk.
    now = 6000
    const later = await ApprovalBook.load(shelf(map), { now: () => now })
    expect([...map.keys()]).toEqual(['all'])
    expect(later.find('a', [MAC])).toMatchObject({ key: 'all' })
    now = 9000
    expect(later.find('a', [MAC])).toBeUndefined()
    expect(later.standing()).toEqual([])
  })

  it('forgets what is used up, and is bounded', async () => {
    const map = new Map<string, Approval>()
    const book = await ApprovalBook.load(shelf(map), { now: () => 1 })
    await book.put([[`mac:${MAC}`, yes(1)]])
    await book.put([['id:a', yes(1)]], [`mac:${MAC}`])
    expect([...map.keys()]).toEqual(['id:a'])
    const many = Array.from({ length: 2 * MAX_MEMBERS }, (_, i): [ApprovalKey, Approval] => [`id:${i}`, yes(1)])
    expect(await codeOf(book.put(many))).toBe('SITE_FULL')
    expect(map.size).toBe(1)
  })
})
