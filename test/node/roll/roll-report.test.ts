import { expect, it } from 'vitest'
import { reportOf } from '../../../node/roll/roll-report.ts'
import { newRoll } from './lab-model.ts'

it('names the machines of which nobody knows what became', () => {
  const roll = newRoll(['a', 'b', 'c', 'd', 'e', 'f'])
  const became = [
    { turn: 'verified', why: '', receipt: '7' },
    { turn: 'failed', why: 'did not come back within 20 min', receipt: '' },
    { turn: 'failed', why: 'its restore is not verified', receipt: '7' },
    { turn: 'skipped', why: 'is off', receipt: '' },
    { turn: 'skipped', why: 'is in use', receipt: '' },
    { turn: 'skipped', why: 'was told to power on, and did not come up', receipt: '' },
  ] as const
  const machines = roll.machines.map((one, i) => ({ ...one, ...became[i] }))
  const report = reportOf({ ...roll, state: 'done', machines }, new Map())
  expect(report).toMatchObject({ verified: 1, failed: 2, skipped: 3, missing: ['b', 'd', 'f'] })
})
