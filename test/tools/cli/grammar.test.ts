import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Command, Option } from 'commander'
import { describe, expect, it } from 'vitest'
import { rollWindow } from '../../../node/roll/window.ts'
import { parseConfig } from '../../../tools/cli/config/config-file.ts'
import { CONFIG_KEYS, CONFIG_NAMES, type ConfigName, type ConfigValues } from '../../../tools/cli/config/config-keys.ts'
import { meshUnits } from '../../../tools/cli/install/mesh-units.ts'
import { parseCount, parseDuration, parseSince } from '../../../tools/cli/parse.ts'

const FOLDER = join(import.meta.dirname, '../../../tools/cli/commands')

const withSubcommands = (command: Command): Command[] => [command, ...command.commands.flatMap(withSubcommands)]
const modules: { command(): Command }[] = await Promise.all(
  readdirSync(FOLDER).map((file) => import(join(FOLDER, file))),
)
const commands = modules.flatMap(({ command }) => withSubcommands(command()))

/** Options of all commands that say the same as a key of the configuration file. */
function optionsOf(name: ConfigName): Option[] {
  const { option, commands: only }: { option: string; commands?: readonly string[] } = CONFIG_KEYS[name]
  const having = commands.filter((one) => only?.includes(one.name()) !== false)
  return having.flatMap((one) => one.options.filter((it) => it.attributeName() === option))
}

const REFUSED = 'refused'
function outcome(read: () => unknown): unknown {
  try {
    return read()
  } catch {
    return REFUSED
  }
}

async function fromFile(name: ConfigName, text: string): Promise<unknown> {
  const value = CONFIG_KEYS[name].kind === 'list' ? [text] : text
  const file = `${name} = ${JSON.stringify(value)}`
  return parseConfig('f', file).then(
    ({ values }: { values: ConfigValues }) => {
      const read = values[name]
      return Array.isArray(read) ? read[0] : read
    },
    () => REFUSED,
  )
}

const MBIT = 1e6 / 8
/** What every door makes of a text. */
const TABLE: readonly (readonly [ConfigName, string, unknown])[] = [
  ...[
    '22:00-05:00',
    '8:30-16:00',
    '22:00 - 05:00',
    'Mo-Fr 22:00-05:00',
    'mo 00:00-24:00',
    'Sa-Mo 1:00-2:00',
    'Mo-Fr 22:00-05:00; Sa-Su 00:00-24:00',
  ].map((text) => ['roll.window', text, text] as const),
  ...[
    '',
    'tomorrow night',
    '25:99-05:00',
    '24:00-05:00',
    '22:60-05:00',
    '22:00',
    '22:00-22:00',
    'Xy 22:00-05:00',
    'Mo,We 22:00-05:00',
    '* 22-23 * * *',
    '22:00-05:00;',
  ].map((text) => ['roll.window', text, REFUSED] as const),
  ['roll.holders', '0', 0],
  ['roll.holders', '100', 100],
  ['roll.holders', '101', REFUSED],
  ['roll.holders', '-1', REFUSED],
  ['roll.wave', '0', REFUSED],
  ['reset.warning', '60m', 3_600_000],
  ['reset.warning', '1h', 3_600_000],
  ['reset.warning', '90s', 90_000],
  ['reset.warning', '2h', REFUSED],
  ['reset.warning', '5', REFUSED],
  ['hooks.timeout', '1d', 86_400_000],
  ['hooks.timeout', '367d', REFUSED],
  ['hooks.timeout', '1.5h', REFUSED],
  ['serving.max-upload', '5 Mbit/s', 5 * MBIT],
  ['serving.max-upload', '5Mbit', 5 * MBIT],
  ['serving.max-upload', '100kbit', REFUSED],
  ['stage.max-download', '100kbit', MBIT / 10],
  ['stage.max-download', '1.5 gbit/s', 1500 * MBIT],
  ['stage.max-download', 'none', 0],
  ['stage.max-download', '5MB', REFUSED],
  ['stage.max-space', '64K', 65_536],
  ['stage.max-space', '1 GiB', 1024 ** 3],
  ['stage.max-space', '1.5G', REFUSED],
  ['uplink', '5 Mbit/s, Mo-Fr 22:00 - 05:00; 1Mbit', '5 Mbit/s, Mo-Fr 22:00 - 05:00; 1Mbit'],
  ['uplink', 'none', 'none'],
  ['uplink', '5 Mbit/s, 25:00-05:00', REFUSED],
  ['image', 'win/11', 'win/11'],
  ['image', 'Win 11', REFUSED],
  ['image', '', REFUSED],
  ['site', '', REFUSED],
  ['site', 'Süd 1', 'Süd 1'],
  ['group', 'lab-a', 'lab-a'],
  ['group', ' ', REFUSED],
  ['listen', '/ip4/0.0.0.0/tcp/1', '/ip4/0.0.0.0/tcp/1'],
  ['listen', '0.0.0.0:1', REFUSED],
  ['serving.in-use-check', ' ', REFUSED],
  ['reset.command', '', REFUSED],
]

describe('what is said on the command line and in the configuration file', () => {
  it.each(TABLE)('%s = "%s" is the same at every door', async (name, text, wanted) => {
    expect(await fromFile(name, text)).toEqual(wanted)
    for (const option of optionsOf(name)) {
      const read = outcome(() => option.parseArg!(text, [] as never))
      expect(Array.isArray(read) ? read[0] : read, option.flags).toEqual(wanted)
    }
    if (name !== 'roll.window') return
    // `roll start` runs by the text, and `install --operator` makes a timer of it.
    const unit = { program: ['/m'], state: '/s', stateInFile: false, hooks: false, nice: 1 }
    if (wanted === REFUSED) return expect(() => meshUnits({ ...unit, roll: { group: 'g', window: text } })).toThrow()
    expect(() => rollWindow(text)).not.toThrow()
    expect(meshUnits({ ...unit, roll: { group: 'g', window: text } }).at(-1)?.text).toMatch(/^OnCalendar=.*:00$/m)
  })

  it('is read by the same function, but for paths, which may be relative on the command line', () => {
    const others = new Set(['state', 'disk', 'hooks.directory', 'boot.disk', 'boot.second'])
    for (const name of CONFIG_NAMES) {
      const { kind, parse, option } = CONFIG_KEYS[name]
      if (others.has(name) || kind === 'boolean' || kind === 'list') continue
      const options = optionsOf(name)
      for (const one of options) expect(one.parseArg, `${name}, ${one.flags}`).toBe(parse)
      if (option !== 'group') expect(options.length, name).toBeGreaterThan(0)
    }
  })

  it('has days that exist', () => {
    expect(parseSince('2026-11-01')).toBe(new Date(2026, 10, 1).getTime())
    expect(parseSince('2028-02-29')).toBe(new Date(2028, 1, 29).getTime())
    for (const text of ['2026-02-30', '2026-02-29', '2026-13-01', '2026-00-10', '2026-11-31'])
      expect(() => parseSince(text)).toThrow(`There is no day ${text}`)
    for (const text of ['yesterday', '2026-1-1', '3', '0d', '2026-11-01T00:00'])
      expect(() => parseSince(text)).toThrow(/such as/)
    expect(() => parseDuration('0s')).toThrow()
    expect(() => parseCount('1e3')).toThrow()
  })
})
