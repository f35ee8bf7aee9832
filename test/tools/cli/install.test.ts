import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { EXIT } from '../../../protocol/errors.ts'
import { installUnits } from '../../../tools/cli/install/install-units.ts'
import { meshUnits, UNIT_NAMES, type UnitFacts } from '../../../tools/cli/install/mesh-units.ts'
import { escapePath, execLine } from '../../../tools/cli/install/unit-text.ts'
import { MeshProcess, type Outcome } from '../../../tools/lab/local-lab.ts'
import { hasTool, runTool } from '../../../tools/lab/run-tool.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const hasSystemd = (await hasTool('systemd-analyze')) && (await hasTool('systemd-escape'))
if (!hasSystemd) console.warn('SKIPPED: needs systemd')

const FACTS: UnitFacts = {
  program: ['/bin/true'],
  state: '/var/lib/lab mesh/100%',
  stateInFile: false,
  disk: '/dev/disk/by-partuuid/ab-cd',
  hooks: false,
  nice: 12,
}
const ROLL = { group: 'lab-a', window: 'Mo-Fr 22:00-05:00' }
const VARIANTS: Readonly<Record<string, Partial<UnitFacts>>> = {
  'no log': {},
  'dm-era': { monitor: { era: 'lab' }, hooks: true, config: '/etc/lab-mesh/mesh.toml' },
  nbd: { monitor: { nbd: 'unix:/run/lab-mesh/nbd' }, roll: ROLL },
  'an image file': { disk: '/srv/vm images/win.raw', monitor: { nbd: 'tcp:127.0.0.1:10809' } },
  'odd paths': {
    disk: '/srv/50% of $HOME; "x\'\\y/win\\',
    state: '/var/lib/$a b%n\\',
    monitor: { nbd: 'unix:/run/a b\\' },
    roll: { group: 'a\\', window: '22:00-05:00' },
  },
}

describe.skipIf(!hasSystemd)('systemd', () => {
  it.each(Object.entries(VARIANTS))('finds nothing wrong with the units for %s', async (_, variant) => {
    const root = await temporaryDirectory()
    const units = meshUnits({ ...FACTS, ...variant })
    expect(units.length).toBeGreaterThanOrEqual(2)
    await installUnits(root, units, { dryRun: false })
    const paths = units.map(({ name }) => join(root, 'etc/systemd/system', name))
    const { stdout, stderr } = await promisify(execFile)('systemd-analyze', ['verify', ...paths])
    expect(stdout + stderr).toBe('')
  })

  it.each(Object.entries(VARIANTS))('finds little that mesh up may do for %s', async (_, variant) => {
    const root = await temporaryDirectory()
    const units = meshUnits({ ...FACTS, ...variant }).filter(({ name }) => name === 'mesh-up.service')
    await installUnits(root, units, { dryRun: false })
    const path = join(root, 'etc/systemd/system/mesh-up.service')
    // It fails above 3.0.
    await promisify(execFile)('systemd-analyze', ['security', '--offline=true', '--no-pager', '--threshold=30', path])
  })

  it('finds what is wrong, so that the test above can fail', async () => {
    const root = await temporaryDirectory()
    const [unit] = meshUnits(FACTS)
    const text = unit!.text.replace('Type=oneshot', 'Type=never')
    await installUnits(root, [{ name: unit!.name, text }], { dryRun: false })
    const path = join(root, 'etc/systemd/system', unit!.name)
    const { stderr } = await promisify(execFile)('systemd-analyze', ['verify', path])
    expect(stderr).toMatch(/never/)
  })

  it.each(['/dev/sda3', '/', '/dev/disk/by-id/a b:c_d.e', '/.hidden//x/', '/ä-\\', '/dev/mapper/lab+1'])(
    'escapes the path %s as we do',
    async (path) => {
      expect(`${escapePath(path)}\n`).toBe(await runTool('systemd-escape', ['--path', '--', path]))
    },
  )

  it('understands the calendar that a window becomes', async () => {
    for (const [window, calendar] of [
      ['22:00-05:00', '*-*-* 22:00:00'],
      ['Mo-Fr 9:30 - 12:00', 'Mon,Tue,Wed,Thu,Fri *-*-* 09:30:00'],
      ['Su 00:00-06:00', 'Sun *-*-* 00:00:00'],
      ['sa-mo 7:05-24:00', 'Mon,Sat,Sun *-*-* 07:05:00'],
    ] as const) {
      const timer = meshUnits({ ...FACTS, roll: { group: 'g', window } }).find(({ name }) => name.endsWith('.timer'))
      const [, found] = /^OnCalendar=(.*)$/m.exec(timer!.text) ?? []
      expect(found).toBe(calendar)
      expect(await runTool('systemd-analyze', ['calendar', found!])).toMatch(/Next elapse: \w/)
    }
  })
})

describe('units', () => {
  it('quote what they run', () => {
    expect(execLine(['/opt/a b/mesh', 'x"y\\z', '100%', '$HOME', '--x=/y'])).toBe(
      '"/opt/a b/mesh" "x\\"y\\\\z" 100%% $$HOME --x=/y',
    )
  })

  it('begin at each of several windows, and take a name with a percent sign for a name', () => {
    const roll = { group: 'room 100%n', window: 'Mo-Tu 22:00-05:00; Su 08:00-24:00' }
    const texts = meshUnits({ ...FACTS, roll }).map(({ text }) => text)
    const timer = texts.at(-1)!
    expect(timer.match(/^OnCalendar=.*$/gm)).toEqual([
      'OnCalendar=Mon,Tue *-*-* 22:00:00',
      'OnCalendar=Sun *-*-* 08:00:00',
    ])
    expect(timer).toContain('Description=When the machines of room 100%%n are reset\n')
    expect(texts.at(-2)).toContain('--group "room 100%%n"')
  })

  it('run a program whose path has a dollar sign', () => {
    expect(execLine(['/opt/a$b/node', '$HOME'])).toBe('/opt/a$b/node $$HOME')
  })

  it('are not made of a path with a line break, or with a backslash that would join two lines', () => {
    for (const disk of ['/srv/a\nExecStart=/bin/x', '/srv/a\r'])
      expect(() => meshUnits({ ...FACTS, disk })).toThrow(/mesh-restore.service cannot hold .*line break/)
    const units = meshUnits({
      ...FACTS,
      disk: '/srv/a\\',
      monitor: { nbd: 'tcp:127.0.0.1:1' },
      roll: { ...ROLL, group: 'g\\' },
    })
    for (const { text } of units) expect(text).not.toMatch(/\\$/m)
  })

  it('are made for what the machine has', () => {
    const names = (facts: Partial<UnitFacts>): string[] => meshUnits({ ...FACTS, ...facts }).map(({ name }) => name)
    expect(names({})).toEqual(['mesh-restore.service', 'mesh-up.service'])
    expect(names({ monitor: { era: 'x' }, roll: ROLL })).toEqual([...UNIT_NAMES])
    const { disk: _, ...none } = FACTS
    expect(meshUnits({ ...none, roll: ROLL }).map(({ name }) => name)).toEqual([
      'mesh-up.service',
      'mesh-roll.service',
      'mesh-roll.timer',
    ])
  })
})

describe('installing', () => {
  const changes = async (...args: Parameters<typeof installUnits>): Promise<string[]> =>
    (await installUnits(...args)).map(({ path, change }) => `${change} ${path.slice(args[0].length)}`)
  const DIR = '/etc/systemd/system'

  it('writes, leaves what is the same, removes what is no longer wanted with its links, and nothing of others', async () => {
    const root = await temporaryDirectory()
    const units = meshUnits({ ...FACTS, monitor: { era: 'lab' } })
    const all = units.map(({ name }) => `${DIR}/${name}`)
    expect(await changes(root, units, { dryRun: true })).toEqual(all.map((path) => `written ${path}`))
    expect(await readdir(root)).toEqual([])
    expect(await changes(root, units, { dryRun: false })).toEqual(all.map((path) => `written ${path}`))
    expect(await changes(root, units, { dryRun: false })).toEqual(all.map((path) => `unchanged ${path}`))
    for (const { name, text } of units) expect(await readFile(join(root, DIR, name), 'utf8')).toBe(text)

    await mkdir(join(root, DIR, 'multi-user.target.wants'))
    for (const name of ['mesh-monitor.service', 'other.service'])
      await symlink(`${DIR}/${name}`, join(root, DIR, 'multi-user.target.wants', name))
    await writeFile(join(root, DIR, 'mesh-roll.timer'), '[Timer]\n')
    await writeFile(join(root, DIR, 'other.service'), units[0]!.text)
    expect(await changes(root, meshUnits(FACTS), { dryRun: false })).toEqual([
      `unchanged ${DIR}/mesh-restore.service`,
      `unchanged ${DIR}/mesh-up.service`,
      `removed ${DIR}/mesh-monitor.service`,
    ])
    expect(await readdir(join(root, DIR, 'multi-user.target.wants'))).toEqual(['other.service'])
    expect(await changes(root, [], { dryRun: false })).toHaveLength(2)
    expect(await changes(root, [], { dryRun: false })).toEqual([])
    expect((await readdir(join(root, DIR))).sort()).toEqual([
      'mesh-roll.timer',
      'multi-user.target.wants',
      'other.service',
    ])
  })

  it('never overwrites a unit, or a mask, that it did not write; then nothing at all is written', async () => {
    const root = await temporaryDirectory()
    await mkdir(join(root, DIR), { recursive: true })
    await writeFile(join(root, DIR, 'mesh-up.service'), '[Service]\nExecStart=/bin/true\n')
    await expect(installUnits(root, meshUnits(FACTS), { dryRun: false })).rejects.toMatchObject({
      code: 'UNIT_FOREIGN',
    })
    expect(await readdir(join(root, DIR))).toEqual(['mesh-up.service'])
    const masked = await temporaryDirectory()
    await mkdir(join(masked, DIR), { recursive: true })
    await symlink('/dev/null', join(masked, DIR, 'mesh-restore.service'))
    await expect(installUnits(masked, meshUnits(FACTS), { dryRun: true })).rejects.toMatchObject({
      code: 'UNIT_FOREIGN',
    })
    await writeFile(join(root, 'file'), '')
    await expect(installUnits(join(root, 'file'), meshUnits(FACTS), { dryRun: false })).rejects.toMatchObject({
      code: 'STATE_UNWRITABLE',
    })
  })
})

describe('mesh install', () => {
  const mesh = (...args: string[]): Promise<Outcome> => new MeshProcess(['install', '--json', ...args]).exited

  it('makes the units from the configuration file', async () => {
    const root = await temporaryDirectory()
    const file = join(root, 'mesh.toml')
    await writeFile(
      file,
      `state = "${root}/state"\ndisk = "/dev/sda3"\ngroup = "lab-a"\nserving.nice = 15\nroll.window = "22:00-05:00"\n`,
    )
    const args = ['--config', file, '--root', root, '--era', 'lab', '--operator']
    const dry = await mesh(...args, '--dry-run')
    expect(dry.code, dry.stderr).toBe(0)
    expect(dry.result?.units).toMatchObject(UNIT_NAMES.map((name) => ({ name })))
    expect(await readdir(root)).toEqual(['mesh.toml'])
    const done = await mesh(...args)
    expect(done.result).toMatchObject({
      next: [
        `systemctl --root=${root} enable mesh-restore.service mesh-monitor.service mesh-up.service mesh-roll.timer`,
      ],
    })
    const text = (name: string): Promise<string> => readFile(join(root, 'etc/systemd/system', name), 'utf8')
    expect(await text('mesh-up.service')).toMatch(/^Nice=15$/m)
    expect(await text('mesh-up.service')).toMatch(new RegExp(`^ExecStart=.*mesh.ts up --config ${file}$`, 'm'))
    expect(await text('mesh-restore.service')).toMatch(/^Before=blockdev@dev-sda3\.target /m)
    expect(await text('mesh-monitor.service')).toMatch(/ monitor --era lab /)
    expect(await text('mesh-roll.service')).toMatch(/ roll start --group lab-a /)
    const removed = await mesh('--root', root, '--remove')
    expect(removed.result?.changes).toHaveLength(UNIT_NAMES.length)
    expect(await readdir(join(root, 'etc/systemd/system'))).toEqual([])
  })

  it('says what is missing', async () => {
    const root = await temporaryDirectory()
    const state = ['--state', join(root, 'state'), '--root', root]
    for (const [args, message] of [
      [['--era', 'lab'], /no disk is known/],
      [['--operator'], /group and roll\.window/],
      [['--era', 'lab', '--nbd', 'unix:/x'], /one of/],
      [['--nbd', 'x'], /unix:\/PATH/],
      [['--root', join(root, 'none')], /no directory/],
    ] as const) {
      const outcome = await mesh(...state, ...args)
      expect([outcome.code, outcome.result?.code], outcome.stderr).toEqual([EXIT.usage, 'USAGE'])
      expect(outcome.stderr).toMatch(message)
    }
    await mkdir(join(root, 'etc/systemd/system'), { recursive: true })
    await writeFile(join(root, 'etc/systemd/system/mesh-up.service'), '')
    const foreign = await mesh(...state)
    expect([foreign.code, foreign.result?.code]).toEqual([EXIT.usage, 'UNIT_FOREIGN'])
  })
})
