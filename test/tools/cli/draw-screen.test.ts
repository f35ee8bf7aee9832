import { describe, expect, it } from 'vitest'
import { CATALOGUES, LANGUAGES } from '../../../tools/cli/screen/catalogue.ts'
import { drawScreen, type ScreenState, textColumns } from '../../../tools/cli/screen/draw-screen.ts'

const STATES: readonly ScreenState[] = [
  { at: 'starting' },
  { at: 'restoring', done: 0.42, secondsLeft: 14 },
  { at: 'checking', done: 1.5 },
  ...(['hold', 'retry', 'start'] as const).map((next) => ({
    at: 'failed' as const,
    code: 'PEERS_UNREACHABLE',
    message: `no machine of the site could be reached in 45 s ${'x'.repeat(200)}`,
    next,
    retrySeconds: 30,
  })),
  { at: 'asking', name: 'pc-525400770000', code: 'K7QM3-XPAH2', why: '' },
  { at: 'asking', name: 'x'.repeat(63), code: 'K7QM3-XPAH2', why: 'a machine of that name is connected '.repeat(10) },
  { at: 'laying' },
  { at: 'keeping', done: 0.5 },
]

describe('the screen of a machine that starts', () => {
  it.each(LANGUAGES.flatMap((language) => [80, 50].map((columns) => [language, columns] as const)))(
    'fits in %s on %i columns',
    (language, columns) => {
      for (const state of STATES) {
        const lines = drawScreen(state, { text: 'Lycée Ada Lovelace, 机房 12', language, columns })
        expect(lines.length).toBeLessThanOrEqual(24)
        for (const line of lines) expect(textColumns(line), line).toBeLessThanOrEqual(columns)
      }
    },
  )

  it('shows how far it is, and what to do', () => {
    const shape = { text: 'Room 12', language: 'en', columns: 50 } as const
    expect(drawScreen(STATES[1]!, shape)).toEqual([
      '',
      '  Room 12',
      '',
      '  This computer is getting ready',
      '',
      '  Putting back what was changed',
      '',
      '  [################-----------------------]  42%',
      '  about 14 s left',
    ])
    const failed = drawScreen(
      { at: 'failed', code: 'DISK_OTHER', message: 'no\u001b[2J', next: 'hold', retrySeconds: 30 },
      shape,
    )
    expect(failed).toContain('  Code: DISK_OTHER')
    expect(failed.join('\n')).toContain(CATALOGUES.en.advice.disk.slice(0, 30))
    expect(failed.join('\n')).not.toContain('\u001b')
    expect(drawScreen(STATES[5]!, shape).join(' ')).toMatch(/NOT put/)
  })

  it('says of a disk that is too small that it is too small', () => {
    const shape = { text: '', language: 'en', columns: 80 } as const
    const message = '/dev/vda has 419430400 bytes, the layout of the site needs 458227712'
    const screen = drawScreen({ at: 'failed', code: 'DISK_TOO_SMALL', message, next: 'hold', retrySeconds: 30 }, shape)
    expect(screen.join('\n')).toContain(CATALOGUES.en.advice.small)
    expect(screen.join('\n')).not.toContain('missing')
  })

  it('shows the name and the code of a machine that asks to be let in', () => {
    expect(drawScreen(STATES[6]!, { text: '', language: 'de', columns: 50 })).toEqual([
      '',
      '  Dieser Computer wird vorbereitet',
      '',
      '  Dieser Computer bittet um Aufnahme. Die',
      '  Technik muss ihn freigeben.',
      '',
      '  Name: pc-525400770000',
      '  Code: K7QM3-XPAH2',
      '',
      '  Den Code mit dem auf dem Hauptrechner',
      '  vergleichen.',
    ])
    expect(drawScreen(STATES[7]!, { text: '', language: 'en', columns: 80 }).join(' ')).toContain('of that name')
  })

  it('says everything in every language', () => {
    for (const language of LANGUAGES) {
      expect(Object.keys(CATALOGUES[language])).toEqual(Object.keys(CATALOGUES.en))
      for (const key of ['left', 'code', 'retry', 'name'] as const) expect(CATALOGUES[language][key]).toContain('{}')
    }
  })
})
