import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import { expect, it } from 'vitest'
import { StateDirectory } from '../../../node/state/state-directory.ts'
import { parseConfig } from '../../../tools/cli/config/config-file.ts'
import { effectiveSettings } from '../../../tools/cli/config/effective-settings.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

it('shows all that is remembered, as the configuration file would say it', async () => {
  const directory = await temporaryDirectory()
  const state = await StateDirectory.open(join(directory, 'state'), { create: true })
  const serving = { uplink: '5 Mbit/s, 20:00-06:00', uplinkStrict: true, stageSpace: 1024 ** 3, stageRate: 62_500 }
  await state.saveMachine({
    site: 'school',
    siteId: 'ab'.repeat(32),
    name: 'pc1',
    id: 'id',
    role: 'machine',
    listen: [],
    serving: { ...serving, maxUpload: 6_250_000 },
    reset: { command: '', warnCommand: 'wall -n' },
  })
  await state.close()
  const file = join(directory, 'mesh.toml')
  await writeFile(file, `state = "${join(directory, 'state')}"\n`)
  const remembered = (await effectiveSettings(new Command(), file)).filter(({ from }) => from === 'remembered')
  const shown = Object.fromEntries(remembered.map(({ name, value }) => [name, value]))
  expect(shown).toEqual({
    site: 'school',
    uplink: '5 Mbit/s, 20:00-06:00',
    'uplink-strict': 'true',
    'serving.max-upload': '50Mbit',
    'stage.max-space': '1073741824',
    'stage.max-download': '500kbit',
    'reset.command': 'none',
    'reset.warn-command': 'wall -n',
  })
  const said = Object.entries(shown).map(
    ([name, value]) => `${name} = ${name === 'uplink-strict' ? value : `"${value}"`}`,
  )
  const { values } = await parseConfig('f', said.join('\n'))
  expect(values).toMatchObject({ 'stage.max-download': 62_500, 'serving.max-upload': 6_250_000, 'uplink-strict': true })
})
