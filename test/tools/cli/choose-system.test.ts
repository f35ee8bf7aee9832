import { describe, expect, it } from 'vitest'
import { chooseSystem } from '../../../tools/cli/boot/choose-system.ts'
import { CATALOGUES, LANGUAGES } from '../../../tools/cli/screen/catalogue.ts'
import { ConsoleKeys } from '../../../tools/cli/screen/console-keys.ts'
import { drawScreen, type ScreenState, textColumns } from '../../../tools/cli/screen/draw-screen.ts'
import { openPseudoTerminal } from '../../support/pseudo-terminal.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** A computer with two systems, whose person types something as soon as it asks. */
async function chosenBy(typed: string, byDefault: number, waitMs: number) {
  const terminal = await openPseudoTerminal()
  const states: ScreenState[] = []
  const show = (state: ScreenState): void => {
    if (states.length === 0) terminal.type(typed)
    states.push(state)
  }
  const { signal } = new AbortController()
  // Neither has joined: they are called as their folders are.
  const folder = await temporaryDirectory()
  const stateDirs = [`${folder}/linux`, `${folder}/windows`]
  const keys = new ConsoleKeys([terminal.path])
  const chosen = await chooseSystem({ stateDirs, byDefault, waitMs, keys, screen: { show }, signal })
  return { chosen, states }
}

const LONG_MS = 10 * 60_000

describe('which of two systems starts', () => {
  it('is asked, with names and the time that is left', async () => {
    const { chosen, states } = await chosenBy('x92', 0, LONG_MS)
    expect(chosen).toBe(1)
    expect(states[0]).toEqual({ at: 'systems', names: ['linux', 'windows'], byDefault: 0, secondsLeft: 600 })
    expect((await chosenBy('1', 1, LONG_MS)).chosen).toBe(0)
  })

  it('is the default at Enter, and after the time', async () => {
    expect((await chosenBy('\r', 1, LONG_MS)).chosen).toBe(1)
    expect((await chosenBy('', 1, 100)).chosen).toBe(1)
  })

  it('is not asked where there is one', async () => {
    const { signal } = new AbortController()
    const screen = { show: (): never => expect.unreachable() }
    const keys = new ConsoleKeys([])
    const choice = { stateDirs: ['/one'], byDefault: 0, waitMs: LONG_MS, keys, screen, signal }
    expect(await chooseSystem(choice)).toBe(0)
  })

  it.each(LANGUAGES)('is shown in %s on 50 columns', (language) => {
    const state = { at: 'systems', names: ['linux-lab', 'windows-lab'], byDefault: 1, secondsLeft: 9 } as const
    const lines = drawScreen(state, { text: '', language, columns: 50 })
    for (const line of lines) expect(textColumns(line)).toBeLessThanOrEqual(50)
    expect(lines).toContain('  2  windows-lab')
    expect(lines.join(' ').replaceAll(/\s+/g, '')).toContain(
      CATALOGUES[language].systemIn.replace('{}', '2').replace('{}', '9').replaceAll(/\s+/g, ''),
    )
  })
})
