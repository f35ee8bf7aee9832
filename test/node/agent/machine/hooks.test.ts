import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import type { AgentEvent } from '../../../../node/agent/machine/events.ts'
import { type HooksReport, runMachineHooks, writeReceiptFile } from '../../../../node/agent/machine/hooks.ts'
import type { RestoreResult } from '../../../../node/restore/restore-result.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

describe('the hooks of a machine', () => {
  let stateDir: string
  let directory: string
  let events: AgentEvent[]
  let flushes: number

  beforeEach(async () => {
    const dir = await temporaryDirectory()
    stateDir = join(dir, 'state')
    directory = join(dir, 'hooks')
    await mkdir(stateDir)
    await mkdir(directory)
    events = []
    flushes = 0
  })

  const hook = (name: string, script: string): Promise<void> =>
    writeFile(join(directory, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  const restored = (release: number): Promise<void> =>
    writeReceiptFile(stateDir, { machine: 'pc', image: 'win', release } as RestoreResult)
  const run = (flush?: () => Promise<void>): Promise<HooksReport | undefined> =>
    runMachineHooks({
      stateDir,
      hooks: { directory },
      place: { MESH_DEVICE: '/dev/x' },
      flush: flush ?? (async () => void flushes++),
      signal: new AbortController().signal,
      report: (event) => events.push(event),
    })

  it('run once for each receipt; what cannot be read as a record is none', async () => {
    await hook('a', 'exit 0')
    expect(await run()).toBeUndefined()
    await restored(1)
    expect(await run()).toEqual({ ran: ['a'], failed: [] })
    expect(await run()).toBeUndefined()
    await restored(2)
    expect(await run()).toEqual({ ran: ['a'], failed: [] })
    expect(flushes).toBe(2)
    for (const text of ['', '{', 'null', '[]']) {
      await writeFile(join(stateDir, 'hooks.json'), text)
      expect(await run()).toEqual({ ran: ['a'], failed: [] })
      expect(await run()).toBeUndefined()
    }
  })

  it('are not recorded when one failed, or when what they wrote is not durable', async () => {
    await hook('a', 'exit 1')
    await hook('b', 'exit 0')
    await restored(1)
    for (let i = 0; i < 2; i++)
      expect(await run()).toMatchObject({ ran: ['a', 'b'], failed: ['a'], failure: { code: 'HOOK_FAILED' } })
    expect(flushes).toBe(0)
    await hook('a', 'exit 0')
    await expect(run(() => Promise.reject(new Error('EIO')))).rejects.toThrow('EIO')
    await expect(readFile(join(stateDir, 'hooks.json'))).rejects.toThrow(/ENOENT/)
    expect(await run()).toEqual({ ran: ['a', 'b'], failed: [] })
  })

  it('are not run with a receipt that is damaged', async () => {
    await hook('a', 'exit 0')
    await writeFile(join(stateDir, 'last-receipt.json'), '{')
    expect(await run()).toMatchObject({
      ran: [],
      failure: { code: 'HOOK_FAILED', message: expect.stringMatching(/damaged/) },
    })
    expect(events).toMatchObject([{ type: 'warning' }])
  })
})
