import { type Command, InvalidArgumentError, type Option } from 'commander'
import { MeshError } from '../../../protocol/errors.ts'
import { type ConfigEntry, type ConfigFile, DEFAULT_CONFIG, readConfigFile } from './config-file.ts'
import { CONFIG_KEYS, CONFIG_NAMES, type ConfigKey, type ConfigName } from './config-keys.ts'

/** The file that was read for a command line, by its program. */
const files = new WeakMap<Command, ConfigFile>()

/**
 * Reads the machine's configuration file and makes its values the defaults of the program's and the command's options,
 * by the parsers of the options. It is called when the program's options are parsed and the command's are not. Values
 * of the command line and of the environment stay. Errors: CONFIG_UNREADABLE, CONFIG_INVALID.
 */
export async function applyConfig(program: Command, command: Command): Promise<void> {
  const named: string | undefined = program.opts().config
  const file = named === undefined ? await readConfigFile(DEFAULT_CONFIG, true) : await readConfigFile(named)
  if (file === undefined) return
  files.set(program, file)
  for (const one of [program, ...withSubcommands(command)]) applyTo(one, file)
}

function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)]
}

function applyTo(command: Command, file: ConfigFile): void {
  for (const [name, entry] of file.entries) {
    const { option: wanted, commands }: ConfigKey<unknown> = CONFIG_KEYS[name]
    if (commands?.includes(command.name()) === false) continue
    const option = command.options.find((one) => one.attributeName() === wanted)
    if (option === undefined || ['cli', 'env'].includes(command.getOptionValueSource(wanted) ?? '')) continue
    command.setOptionValueWithSource(wanted, valueFor(option, name, entry, file), 'config')
  }
}

function valueFor(option: Option, name: ConfigName, { line, text }: ConfigEntry, file: ConfigFile): unknown {
  if (typeof text !== 'string' || CONFIG_KEYS[name].kind === 'boolean') return file.values[name]
  try {
    return option.parseArg === undefined ? text : option.parseArg(text, undefined)
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error
    throw new MeshError('CONFIG_INVALID', `${file.path}:${line}: ${name} = ${JSON.stringify(text)}: ${error.message}`)
  }
}

/** The configuration file of the command line that `command` is part of. */
export function configOf(command: Command): ConfigFile | undefined {
  return files.get(chainOf(command).at(-1)!)
}

/** Names of the options of a command that have their value from the configuration file. */
export function optionsFromFile(command: Command): ReadonlySet<string> {
  const chain = chainOf(command)
  const names: string[] = CONFIG_NAMES.map((name) => CONFIG_KEYS[name].option)
  return new Set(
    names.filter((name) => {
      const sources = chain.map((one) => one.getOptionValueSource(name))
      return sources.includes('config') && !sources.some((source) => source === 'cli' || source === 'env')
    }),
  )
}

function chainOf(command: Command): Command[] {
  return command.parent === null ? [command] : [command, ...chainOf(command.parent)]
}
