import { expect, it } from 'vitest'
import { CardWatch } from '../../../../node/agent/mesh/card-watch.ts'

const [OLD, NEW, USB] = ['02:00:5e:10:00:01', '02:00:5e:10:00:02', '02:00:5e:10:00:03']
const listed = { name: 'pc07', mac: [OLD] }

it('names a machine once that has none of its network cards any more, until it has joined again', () => {
  const warnings: string[] = []
  const watch = new CardWatch((text) => void warnings.push(text))
  for (const now of [[OLD], [USB, OLD], []]) watch.seen('id', listed, now)
  watch.seen('stranger', undefined, [NEW])
  watch.seen('unknown', { name: 'pc08', mac: [] }, [NEW])
  expect(warnings).toEqual([])
  for (let times = 0; times < 2; times++) watch.seen('id', listed, [NEW])
  expect(warnings).toEqual([expect.stringMatching(/^pc07 has none of the network cards .*00:01\), but 02.*00:02:/)])
  expect(watch.of('id')).toEqual([NEW])
  watch.seen('id', { name: 'pc07', mac: [NEW] }, [NEW])
  expect(watch.of('id')).toBeUndefined()
  watch.seen('id', listed, [NEW], true)
  expect(warnings[1]).toMatch(/^this machine, pc07, has none/)
})
