import { resolve } from 'node:path'
import { Command } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'
import { DEFAULT_CONFIG, readConfigFile } from '../config/config-file.ts'
import { CONFIG_NAMES } from '../config/config-keys.ts'
import { formatTable } from '../format.ts'

/** `mesh config`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return new Command('config')
    .description('check a configuration file, or show which settings are in effect')
    .addCommand(
      withCommonOptions(new Command('check'))
        .description('tell everything that is wrong in a configuration file')
        .argument('[file]', `default: the file of --config or MESH_CONFIG, else ${DEFAULT_CONFIG}`)
        .addHelpText('after', '\nExit code 0 if nothing is wrong, else 2.\n\nExample:\n  mesh config check mesh.toml')
        .action(action(check)),
    )
    .addCommand(
      withCommonOptions(new Command('show'))
        .description('every setting in effect and all that is remembered of this machine, and where it comes from')
        .addHelpText('after', '\nExample:\n  mesh config show --json')
        .action(action(show)),
    )
}

async function check(context: Context, options: { config?: string }, given?: string): Promise<void> {
  const path = resolve(given ?? options.config ?? DEFAULT_CONFIG)
  const { entries } = await readConfigFile(path)
  context.output.result(
    { event: 'config-checked', file: path, keys: entries.size },
    `${path}: ${entries.size} of ${CONFIG_NAMES.length} keys are set, nothing is wrong.`,
  )
}

async function show(context: Context, options: { config?: string }): Promise<void> {
  const { effectiveSettings } = await import('../config/effective-settings.ts')
  const { machineFacts } = await import('../config/machine-facts.ts')
  const settings = await effectiveSettings(context.command, options.config)
  const state = settings.find(({ name }) => name === 'state')!.value
  const machine = await machineFacts(String(state))
  const row = ({ name, value, from }: (typeof settings)[number] | (typeof machine)[number]): string[] => [
    name,
    typeof value === 'string' ? value : value.join(', '),
    from,
  ]
  const tables = [formatTable([['setting', 'value', 'from'], ...settings.map(row)])]
  if (machine.length > 0) tables.push(formatTable([['machine', 'value', 'from'], ...machine.map(row)]))
  context.output.result({ event: 'config', settings, machine }, tables.join('\n\n'))
}
