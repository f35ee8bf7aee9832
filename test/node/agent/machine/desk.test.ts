import { rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Desk } from '../../../../node/agent/machine/desk.ts'
import type { AgentEvent } from '../../../../node/agent/machine/events.ts'
import { holdState, readState } from '../../../../node/agent/machine/hold-state.ts'
import { VALUES_PAGE_BYTES } from '../../../../node/agent/machine/limits.ts'
import { askWork, describeWork } from '../../../../node/agent/machine/work.ts'
import { callControl } from '../../../../node/control/control-client.ts'
import { socketPlaces } from '../../../../node/state/socket-place.ts'
import { StateDirectory } from '../../../../node/state/state-directory.ts'
import { storedDocument } from '../../../../node/state/stored-document.ts'
import { anyText, truth } from '../../../../protocol/json-shape.ts'
import { codeOf } from '../../../support/error-code.ts'
import { useTempDir } from '../../../support/temp-dir.ts'

const NOTES = storedDocument('a note', anyText(1024 * 1024))

describe('a command at work on a state directory', () => {
  const dir = useTempDir()

  async function holding(name: string, opening = false): Promise<{ state: StateDirectory; desk: Desk }> {
    const state = await StateDirectory.open(dir(name), { create: true, command: 'restore' })
    const said: AgentEvent[] = []
    const desk = await Desk.open({ state, command: 'restore', opening, report: (event) => said.push(event) })
    onTestFinished(async () => {
      await desk.close()
      await state.close()
    })
    return { state, desk }
  }

  it('lets others read what it has open: one value, and many, in pages, from either end', async () => {
    const { state } = await holding('read')
    const shelf = state.shelf('notes', NOTES)
    const long = 'x'.repeat(VALUES_PAGE_BYTES / 4)
    for (let i = 0; i < 20; i++) await shelf.put(`k${String(i).padStart(2, '0')}`, `${i} ${long}`)
    const { state: read, holder } = await readState(dir('read'))
    expect(holder).toMatchObject({ command: 'restore', pid: process.pid })
    const there = read.shelf('notes', NOTES)
    expect(await there.get('k07')).toBe(`7 ${long}`)
    expect(await there.get('missing')).toBeUndefined()
    const keys = async (range: object): Promise<string[]> => {
      const found: string[] = []
      for await (const [key] of there.iterator(range)) found.push(key)
      return found
    }
    const all = Array.from({ length: 20 }, (_, i) => `k${String(i).padStart(2, '0')}`)
    expect(await keys({})).toEqual(all)
    expect(await keys({ reverse: true })).toEqual(all.toReversed())
    expect(await keys({ gt: 'k02', lt: 'k17', limit: 9 })).toEqual(all.slice(3, 12))
    expect(await keys({ lt: 'k17', reverse: true, limit: 9 })).toEqual(all.slice(8, 17).toReversed())
    expect(() => there.put('k', 'v')).toThrow(/only read/)
    await read.close()
  })

  it('works on where no socket can be had, and says so', async () => {
    const [long, said] = ['x'.repeat(120), [] as AgentEvent[]]
    const state = await StateDirectory.open(dir(long), { create: true })
    // The one place where the socket may be is taken.
    const folder = dirname(socketPlaces(dir(long), 'control.sock')[0]!)
    await writeFile(folder, '')
    try {
      const desk = await Desk.open({ state, command: 'restore', report: (event) => said.push(event) })
      await desk.close()
      const [warning] = said
      expect(warning).toMatchObject({ type: 'warning' })
      expect(String(warning?.type === 'warning' && warning.text)).toMatch(
        /cannot ask this one while it runs: \S+lab-mesh-\w+ /,
      )
    } finally {
      await rm(folder)
      await state.close()
    }
  })

  it('says what it is at, and how far, to whoever wants the directory', async () => {
    const { desk } = await holding('progress')
    desk.note({ type: 'progress', phase: 'restore', doneBytes: 37, totalBytes: 100 })
    expect(await askWork(dir('progress'))).toMatchObject({ progress: { phase: 'restore', doneBytes: 37 } })
    const wanted = await holdState(dir('progress'), { create: false }).catch((error: Error) => error)
    expect(wanted).toMatchObject({ code: 'STATE_IN_USE' })
    expect(String(wanted)).toMatch(/in use by mesh restore \(pid \d+\), since .* UTC.*: restoring the disk, 37 % done$/)
    desk.note({ type: 'progress', phase: 'restore', doneBytes: 100, totalBytes: 100 })
    expect(describeWork(desk.work())).not.toMatch(/%/)
    desk.note({ type: 'roll', roll: 'r', group: 'g', state: 'running', why: 'outside its window' } as AgentEvent)
    expect(describeWork(desk.work())).toMatch(/: the roll is running: outside its window$/)
  })

  it('refuses what it does not answer, but waits for what it will answer before long', async () => {
    const { desk } = await holding('methods')
    expect(await codeOf(callControl(dir('methods'), 'invite', truth))).toBe('STATE_BUSY')
    const stop = desk.answer({ methods: { invite: async () => true } })
    expect(await callControl(dir('methods'), 'invite', truth)).toBe(true)
    stop()
    expect(await codeOf(callControl(dir('methods'), 'invite', truth))).toBe('STATE_BUSY')

    const young = await holding('young', true)
    const asked = callControl(dir('young'), 'invite', truth)
    expect(await askWork(dir('young'))).toBeDefined()
    young.desk.answer({ methods: { invite: async () => true } })
    young.desk.opened()
    expect(await asked).toBe(true)
  })

  it('is waited for if it answers nobody and ends soon, as one that only reads', async () => {
    const state = await StateDirectory.open(dir('soon'), { create: true, command: 'status' })
    const next = holdState(dir('soon'), { create: false })
    await state.close()
    await (await next).close()
    expect(await askWork(dir('soon'))).toBeUndefined()
  })
})
