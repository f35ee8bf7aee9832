import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { menuOf } from '../../../tools/cli/boot/build-facts.ts'
import { LocalMenu } from '../../../tools/cli/boot/local-menu.ts'
import { isMenuPassword, makeMenuFacts, readMenuFacts } from '../../../tools/cli/boot/menu-facts.ts'
import { runShell } from '../../../tools/cli/boot/technician.ts'
import { BootScreen } from '../../../tools/cli/screen/boot-screen.ts'
import { CATALOGUES, LANGUAGES, type Language } from '../../../tools/cli/screen/catalogue.ts'
import { ConsoleKeys } from '../../../tools/cli/screen/console-keys.ts'
import { codeOf } from '../../support/error-code.ts'
import { openPseudoTerminal } from '../../support/pseudo-terminal.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const PASSWORD = 'correct horse 7'
const FAILED = {
  at: 'failed',
  code: 'PEERS_UNREACHABLE',
  message: 'nobody',
  next: 'hold',
  retrySeconds: 30,
} as const

/** A machine that failed, with somebody at a console of it. */
async function failedMachine(
  options: { password?: string; mayStart?: boolean; language?: Language; wrongMs?: number } = {},
) {
  const { password = PASSWORD, mayStart = true, language = 'en', wrongMs = 50 } = options
  const path = join(await temporaryDirectory(), 'menu')
  if (password !== '') await writeFile(path, await makeMenuFacts(password, mayStart))
  const terminal = await openPseudoTerminal()
  // A name of a serial line: those show every language.
  const consoles = [{ name: 'ttyS0', path: terminal.path, columns: 80 }]
  const screen = new BootScreen({ text: 'Room 12', language }, consoles)
  onTestFinished(() => screen.close())
  const done: string[] = []
  const menu = new LocalMenu({
    facts: await readMenuFacts(path),
    keys: new ConsoleKeys([terminal.path]),
    screen,
    shell: runShell,
    power: async (how) => void done.push(how),
    note: (text) => done.push(text),
    signal: new AbortController().signal,
    wrongMs,
  })
  /** Types, and waits for what is shown after that. */
  const answer = async (typed: string, shows: string): Promise<void> => {
    const from = terminal.shown().length
    terminal.type(typed)
    await terminal.shows(shows, from)
  }
  return { ...terminal, menu, answer, done }
}

describe('the menu of a machine that failed', () => {
  it('is not there without a password, and Enter tries again', async () => {
    const { menu, type, shows, shown } = await failedMachine({ password: '' })
    const decision = menu.decide(FAILED, undefined)
    await shows('PEERS_UNREACHABLE')
    expect(shown()).not.toContain(CATALOGUES.en.menu)
    type('m\r')
    expect(await decision).toBe('retry')
  })

  it('tries again when its time is over, whether there is a keyboard or not', async () => {
    const { menu } = await failedMachine()
    expect(await menu.decide({ ...FAILED, next: 'retry' }, 10)).toBe('retry')
    const { signal } = new AbortController()
    const keys = new ConsoleKeys(['/dev/null', '/does/not/exist'])
    keys.open()
    expect(await keys.next(10, signal)).toBeUndefined()
    keys.close()
  })

  it.each(LANGUAGES)('opens with the password only, which is never shown, in %s', async (language) => {
    const words = CATALOGUES[language]
    const { menu, answer, type, shows, shown, done } = await failedMachine({ language })
    const decision = menu.decide(FAILED, undefined)
    await shows(words.menu)
    const asked = words.password.slice(-8)
    const refused = words.wrong.replace('{}', '1')
    await answer('m', asked)
    await answer('wrong one\r', refused)
    await shows(asked, shown().lastIndexOf(refused))
    // What was typed can be taken back; arrows count for nothing.
    const from = shown().length
    await answer(`${PASSWORD}xy\u007f\u007f\r`, `2  ${words.choices.start}`)
    for (const choice of Object.values(words.choices)) expect(shown().slice(from)).toContain(choice)
    await answer('\u001b', words.menu)
    expect(shown()).not.toMatch(/horse|wrong one/)
    expect(done).toHaveLength(2)
    await answer('M', asked)
    await answer(`${PASSWORD}\r`, words.choices.poweroff)
    type('2')
    expect(await decision).toBe('start')
  })

  it('does what is chosen, and starts nothing unverified unless the lab allows it', async () => {
    const { menu, answer, type, shows, shown, done, path } = await failedMachine({ mayStart: false })
    const decision = menu.decide(FAILED, undefined)
    await shows(CATALOGUES.en.menu)
    await answer('m', 'Password')
    await answer(`${PASSWORD}\r`, '3  Shell')
    expect(shown()).not.toContain(CATALOGUES.en.choices.start)
    const from = shown().length
    type('243')
    await shows('exit: back to the menu', from)
    await shows('agent# ', from)
    expect(done.at(-2)).toBe('reboot')
    await answer('tty; echo $((6 * 7))\r', '42')
    expect(shown()).toContain(path)
    await answer('exit\r', '4  Restart')
    type('51')
    expect(await decision).toBe('retry')
    expect(done.at(-1)).toBe('poweroff')
  })

  it('keeps who guesses waiting, longer each time, also behind the failure’s screen', async () => {
    const { menu, answer, shows, type, shown } = await failedMachine({ wrongMs: 1_000 })
    const decision = menu.decide(FAILED, undefined)
    await shows(CATALOGUES.en.menu)
    await answer('m', 'Password')
    await answer('guess one\r', 'wait 1 s')
    await shows('Password', shown().lastIndexOf('wait 1 s'))
    await answer('\u001b', CATALOGUES.en.menu)
    await answer('m', 'Password')
    await answer('guess two\r', 'wait 2 s')
    const from = shown().length
    // What is typed meanwhile is lost.
    type(`${PASSWORD}\r`)
    await shows('Password', from)
    await answer('\u001b', CATALOGUES.en.menu)
    type('\r')
    expect(await decision).toBe('retry')
    expect(shown()).not.toContain(CATALOGUES.en.choices.shell)
  })
})

describe('the password of the menu', () => {
  it('is kept as a hash', async () => {
    const path = join(await temporaryDirectory(), 'menu')
    const text = await makeMenuFacts(PASSWORD, false)
    expect(text).not.toContain('horse')
    expect(await makeMenuFacts(PASSWORD, false)).not.toBe(text)
    await writeFile(path, text)
    const facts = (await readMenuFacts(path))!
    expect(facts).toMatchObject({ mayStart: false, scrypt: { N: 32768, r: 8, p: 3 } })
    expect(await isMenuPassword(facts, PASSWORD)).toBe(true)
    expect(await isMenuPassword(facts, `${PASSWORD} `)).toBe(false)
    expect(await isMenuPassword(facts, '')).toBe(false)
    await writeFile(path, text.replace('"scrypt"', '"other"'))
    expect(await codeOf(readMenuFacts(path))).toBe('STATE_CORRUPT')
  })

  it('comes from a file, without its line end', async () => {
    const menuPassword = join(await temporaryDirectory(), 'password')
    await writeFile(menuPassword, `${PASSWORD}\r\nnot this\n`)
    const path = join(await temporaryDirectory(), 'menu')
    await writeFile(path, (await menuOf({ menuPassword, menuStart: true }))!)
    const facts = (await readMenuFacts(path))!
    expect(facts.mayStart).toBe(true)
    expect(await isMenuPassword(facts, PASSWORD)).toBe(true)
    expect(await menuOf({ menuStart: false })).toBeUndefined()
    expect(await codeOf(menuOf({ menuStart: true }))).toBe('USAGE')
    expect(await codeOf(menuOf({ menuPassword: '/does/not/exist', menuStart: false }))).toBe('USAGE')
  })

  it('is refused if it is short, or cannot be typed on every keyboard', async () => {
    for (const wrong of ['', 'seven 7', 'x'.repeat(129), 'pässword 1', 'tab\tinside it'])
      expect(await codeOf(makeMenuFacts(wrong, false)), wrong).toBe('USAGE')
  })
})
