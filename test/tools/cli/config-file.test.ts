import { writeFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { MeshError } from '../../../protocol/errors.ts'
import { nearestWord } from '../../../protocol/nearest-word.ts'
import { parseConfig, readConfigFile } from '../../../tools/cli/config/config-file.ts'
import { CONFIG_KEYS, CONFIG_NAMES } from '../../../tools/cli/config/config-keys.ts'
import { MAX_CONFIG_BYTES } from '../../../tools/cli/limits.ts'
import { useTempDir } from '../../support/temp-dir.ts'

/** What is wrong with a file, without its name. */
async function problemsOf(text: string): Promise<string[]> {
  const error = await parseConfig('f', text).then(
    () => undefined,
    (error: unknown) => error,
  )
  if (error === undefined) return []
  expect(error).toBeInstanceOf(MeshError)
  expect((error as MeshError).code).toBe('CONFIG_INVALID')
  return (error as MeshError).message.split('\n').map((line) => line.replace(/^f:/, ''))
}

describe('a configuration file', () => {
  const temp = useTempDir()

  it('may set every key; values are as the options read them', async () => {
    const file = await parseConfig(
      'mesh.toml',
      `# pc07
state = "/var/lib/mesh"
disk = "/dev/sda3"
image = "win11"
listen = ["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/2"]
mdns = false
site = "north"
group = "lab-a"
uplink = "5 Mbit/s, 20:00-06:00"
uplink-strict = true
serving = { max-upload = "50Mbit", max-cpu = "25%" }
reset.command = "reboot"
reset.warn-command = "wall"
reset.warning = "5m"
[stage]
max-space = "4G"
max-download = "none"
`,
    )
    expect(file.values).toEqual({
      state: '/var/lib/mesh',
      disk: '/dev/sda3',
      image: 'win11',
      listen: ['/ip4/0.0.0.0/tcp/1', '/ip6/::/tcp/2'],
      mdns: false,
      site: 'north',
      group: 'lab-a',
      uplink: '5 Mbit/s, 20:00-06:00',
      'uplink-strict': true,
      'serving.max-upload': 6_250_000,
      'serving.max-cpu': 0.25,
      'reset.command': 'reboot',
      'reset.warn-command': 'wall',
      'reset.warning': 300_000,
      'stage.max-space': 4 * 1024 ** 3,
      'stage.max-download': 0,
    })
    expect(file.entries.get('mdns')).toEqual({ line: 6, text: 'false' })
    expect(file.entries.get('serving.max-cpu')).toEqual({ line: 11, text: '25%' })
    const rest = await parseConfig(
      'mesh.toml',
      `[serving]
max-peers = 4
nice = "15"
in-use-check = "none"
[hooks]
directory = "/etc/lab-mesh/hooks.d"
timeout = "30s"
[roll]
window = "22:00-05:00"
holders = 3
wave = 8
stop-after = 2
[boot]
on-failure = "retry"
lang = "de"
text = "Schule am Fluss"
disk = "/dev/nvme0n1"
master = ["/ip4/10.0.0.1/tcp/7433"]
entry = '\\EFI\\Microsoft\\Boot\\bootmgfw.efi'
second = "/var/lib/lab-mesh/windows"
default-system = 2
choice-wait = "5s"
`,
    )
    expect(rest.values).toEqual({
      'serving.max-peers': 4,
      'serving.nice': 15,
      'serving.in-use-check': 'none',
      'hooks.directory': '/etc/lab-mesh/hooks.d',
      'hooks.timeout': 30_000,
      'roll.window': '22:00-05:00',
      'roll.holders': 3,
      'roll.wave': 8,
      'roll.stop-after': 2,
      'boot.on-failure': 'retry',
      'boot.lang': 'de',
      'boot.text': 'Schule am Fluss',
      'boot.disk': '/dev/nvme0n1',
      'boot.master': ['/ip4/10.0.0.1/tcp/7433'],
      'boot.entry': '\\EFI\\Microsoft\\Boot\\bootmgfw.efi',
      'boot.second': '/var/lib/lab-mesh/windows',
      'boot.default-system': 2,
      'boot.choice-wait': 5_000,
    })
    // The two files are about all keys there are.
    expect([...file.entries.keys(), ...rest.entries.keys()].sort()).toEqual([...CONFIG_NAMES].sort())
    expect(new Set(CONFIG_NAMES.map((name) => CONFIG_KEYS[name].option)).size).toBe(CONFIG_NAMES.length)
  })

  it('may be empty', async () => {
    expect((await parseConfig('f', '')).entries.size).toBe(0)
    expect((await parseConfig('f', '[serving]\n# nothing\n')).entries.size).toBe(0)
  })

  it('tells everything that is wrong at once, with line, key, what was given and what is allowed', async () => {
    expect(
      await problemsOf(`state = "relative"
dsik = "/dev/sda"
listen = "/ip4/0.0.0.0/tcp/1"
mdns = "yes"
max-upload = "5Mbit"
image = "fine"
[serving]
max-upload = "fast"
max-cpu = 50
nice = 40
[servng]
nice = 1
[[roll]]
holders = 3
[reset]
command = ""
warning = { a = 1 }
`),
    ).toEqual([
      '1: state = "relative": Give an absolute path.',
      '2: unknown key dsik; did you mean disk?',
      '3: listen = "/ip4/0.0.0.0/tcp/1": Give a list of strings, such as ["/ip4/0.0.0.0/tcp/7433"].',
      '4: mdns = "yes": Give true or false.',
      '5: unknown key max-upload; did you mean serving.max-upload?',
      '8: serving.max-upload = "fast": Give a rate such as 20Mbit, 100Mbit or 1Gbit (at least 1000kbit), or none.',
      '9: serving.max-cpu = 50: Give a string in quotes.',
      '10: serving.nice = 40: Give a whole number from 0 (as usual) to 19 (everything else first).',
      '11: unknown table [servng]; did you mean serving?',
      '13: [[roll]] is a list of tables; write [roll]',
      '16: reset.command = "": Give a text that is not empty.',
      '17: reset.warning = {…}: Give a string in quotes.',
    ])
  })

  it.each([
    ['mdns = true\nlisten = [1]', '2: listen = [1]: '],
    ['disk = 2026-01-01', '1: disk = 2026-01-01: '],
    ['serving.nice = 1.5', '1: serving.nice = 1.5: '],
    ['serving = 3', '1: unknown key serving'],
    ['serving.nice.x = 3', '1: unknown key serving.nice.x'],
    ['"__proto__" = 1', '1: unknown key __proto__'],
    ['constructor = { a = 1 }', '1: unknown key constructor.a'],
    ['[serving.nice]', '1: unknown table [serving.nice]'],
    ['disk =\n', '1: '],
    ['disk = "/a"\ndisk = "/b"', '2: '],
    ['disk = "/a', '1: '],
    ['[serving', '1: '],
    ['a b', '1: '],
  ])('%j is refused', async (text, start) => {
    const [first, ...others] = await problemsOf(text)
    expect(first?.slice(0, start.length)).toBe(start)
    expect(others).toEqual([])
  })

  it('must exist if it was named, be readable, of UTF-8 and of a sensible size', async () => {
    const path = temp('mesh.toml')
    expect(await readConfigFile(path, true)).toBeUndefined()
    await expect(readConfigFile(path)).rejects.toMatchObject({ code: 'CONFIG_UNREADABLE', exitCode: 2 })
    await expect(readConfigFile(temp(''), true)).rejects.toMatchObject({ code: 'CONFIG_UNREADABLE' })
    await writeFile(path, Buffer.of(0x61, 0xff))
    await expect(readConfigFile(path)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/UTF-8/),
    })
    await writeFile(path, '#'.repeat(MAX_CONFIG_BYTES + 1))
    await expect(readConfigFile(path, true)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/at most/),
    })
    await writeFile(path, '#'.repeat(MAX_CONFIG_BYTES))
    expect((await readConfigFile(path)).entries.size).toBe(0)
  })
})

describe('the nearest word', () => {
  it.each([
    ['dsik', 'disk'],
    ['Image', 'image'],
    ['imag', 'image'],
    ['sitee', 'site'],
    ['zzzzzz', undefined],
    ['', undefined],
  ])('of %j is %j', (word, nearest) => {
    expect(nearestWord(word, ['disk', 'image', 'state', 'site'])).toBe(nearest)
  })
})
