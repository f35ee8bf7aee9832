import { describe, expect, it } from 'vitest'
import { ScanLog } from '../../../node/writelog/scan-log.ts'
import { writeLogCompliance } from '../../compliance/write-log.ts'

writeLogCompliance('ScanLog', async () => ({ log: new ScanLog(), units: 64, again: async () => new ScanLog() }))

describe('ScanLog', () => {
  it('never claims to know anything, and says why', async () => {
    const log = new ScanLog('the log file is torn')
    expect(await log.open()).toEqual({ state: 'unknown', reason: 'the log file is torn' })
    expect((await new ScanLog().open()).state).toBe('unknown')
  })
})
