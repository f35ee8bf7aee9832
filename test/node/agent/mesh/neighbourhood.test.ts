import { describe, expect, it } from 'vitest'
import { Neighbourhood } from '../../../../node/agent/mesh/neighbourhood.ts'
import { DIAL_STEP_PEERS, FAR_PEERS } from '../../../../node/net/limits.ts'
import type { Member } from '../../../../node/trust/members.ts'

const member = (id: string, site: string, role: Member['role'] = 'machine'): Member => ({
  id,
  name: `name of ${id}`,
  role,
  site,
  group: site,
  mac: [],
  added: '2026-01-01T00:00:00.000Z',
})

/** A machine `self` in site a, with `pc` beside it; the master and `far` are elsewhere. */
function neighbourhood(own: readonly Member[] = [member('self', 'a')]): Neighbourhood {
  const members = [...own, member('pc', 'a'), member('master', 'b', 'master'), member('far', 'b')]
  return new Neighbourhood(() => ({ members, memberById: (id) => members.find((one) => one.id === id) }), 'self')
}

describe('Neighbourhood', () => {
  it('calls near who has the same site, and who is not in the list', () => {
    const { isNear, whoIsFar } = bound(neighbourhood())
    expect(['self', 'pc', 'stranger', 'master', 'far'].map(isNear)).toEqual([true, true, true, false, false])
    expect(whoIsFar('pc')).toBeUndefined()
    expect(whoIsFar('far')).toMatchObject({ name: 'name of far', site: 'b' })
  })

  it('takes everybody for near while this machine is not in the list', () => {
    const { isNear } = bound(neighbourhood([]))
    expect(['pc', 'master', 'far'].map(isNear)).toEqual([true, true, true])
  })

  it('asks about near members alone, and leaves this machine out', () => {
    const asked: string[] = []
    const all = neighbourhood().everyNear((id) => asked.push(id) > 0)
    expect([all, asked]).toEqual([true, ['pc']])
    expect(neighbourhood().everyNear(() => false)).toBe(false)
  })

  it('dials near members first, then masters elsewhere, then others', () => {
    const hood = neighbourhood()
    const ranks = ['pc', 'master', 'far'].map((id) => hood.rank(id))
    expect(ranks).toEqual(ranks.toSorted((a, b) => a - b))
    expect(new Set(ranks).size).toBe(3)
  })

  it('counts far connections for far members, and all of them for a restore', () => {
    const hood = neighbourhood()
    const facts = { connected: new Set(['pc', 'far']), restoringMs: undefined, starves: false, needsFar: false }
    expect(hood.room(hood.rank('far'), facts)).toBe(FAR_PEERS - 1)
    expect(hood.room(hood.rank('pc'), { ...facts, restoringMs: 0 })).toBe(DIAL_STEP_PEERS - 2)
    const operator = neighbourhood([member('self', 'a', 'operator')])
    expect(operator.room(operator.rank('far'), facts)).toBe(Number.POSITIVE_INFINITY)
  })
})

/** The methods as functions of their own, for `map`. */
function bound(hood: Neighbourhood) {
  return { isNear: (id: string) => hood.isNear(id), whoIsFar: (id: string) => hood.whoIsFar(id) }
}
