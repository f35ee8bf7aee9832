import type { Command } from 'commander'
import { DEFAULT_CONFIG, readConfigFile } from './config-file.ts'
import { CONFIG_KEYS, CONFIG_NAMES, type ConfigKey, type ConfigName } from './config-keys.ts'

/** One setting of a machine as it is now. */
interface Setting {
  readonly name: ConfigName
  readonly value: string | readonly string[]
  /** `--OPTION`, an environment variable, `FILE:LINE`, `remembered` or `default`. */
  readonly from: string
}

/**
 * Every setting of a machine. An option of `command` goes before the configuration file, and the file before what is
 * remembered.
 */
export async function effectiveSettings(command: Command, path: string | undefined): Promise<Setting[]> {
  const file = path === undefined ? await readConfigFile(DEFAULT_CONFIG, true) : await readConfigFile(path)
  const given = (name: ConfigName): Setting | undefined => givenOption(command, name)
  const stateDir = given('state')?.value ?? file?.values.state ?? CONFIG_KEYS.state.fallback
  const { rememberedMachine } = await import('../../../node/agent/machine/remembered-machine.ts')
  const remembered = remember(await rememberedMachine(String(stateDir)))
  return CONFIG_NAMES.map((name) => {
    const entry = file?.entries.get(name)
    const said = given(name)
    if (said !== undefined) return said
    if (file !== undefined && entry !== undefined)
      return { name, value: entry.text, from: `${file.path}:${entry.line}` }
    const known = remembered[name]
    if (known !== undefined) return { name, value: known, from: 'remembered' }
    return { name, value: CONFIG_KEYS[name].fallback, from: 'default' }
  })
}

/** The value of the command line or the environment. Both name an option of the program, which all commands have. */
function givenOption(command: Command, name: ConfigName): Setting | undefined {
  const { option: wanted }: ConfigKey<unknown> = CONFIG_KEYS[name]
  for (let at: Command | null = command; at !== null; at = at.parent) {
    const option = at.options.find((one) => one.attributeName() === wanted)
    const source = at.getOptionValueSource(wanted)
    if (option === undefined || (source !== 'cli' && source !== 'env')) continue
    const value: unknown = at.getOptionValue(wanted)
    return {
      name,
      value: Array.isArray(value) ? value.map(String) : String(value),
      from: source === 'env' ? (option.envVar ?? 'environment') : (option.long ?? option.flags),
    }
  }
  return undefined
}

type Remembered = Awaited<
  ReturnType<typeof import('../../../node/agent/machine/remembered-machine.ts').rememberedMachine>
>

/** `machine.json` as the configuration file would say it. */
function remember(machine: Remembered): Partial<Record<ConfigName, string | readonly string[]>> {
  if (machine === undefined) return {}
  const { site, image, disk, listen, serving = {}, reset = {} } = machine
  const { maxUpload, maxCpu, maxPeers, nice, inUseCheck, uplink, uplinkStrict, stageSpace, stageRate } = serving
  const all = {
    site,
    image,
    disk,
    ...(listen.length > 0 ? { listen } : {}),
    uplink,
    'uplink-strict': uplinkStrict?.toString(),
    'serving.max-upload': rateText(maxUpload),
    'serving.max-cpu': maxCpu === undefined ? undefined : `${Math.round(maxCpu * 100)}%`,
    'serving.max-peers': maxPeers?.toString(),
    'serving.nice': nice?.toString(),
    'serving.in-use-check': inUseCheck === '' ? 'none' : inUseCheck,
    'stage.max-space': stageSpace?.toString(),
    'stage.max-download': rateText(stageRate),
    'reset.command': reset.command === '' ? 'none' : reset.command,
    'reset.warn-command': reset.warnCommand,
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

/** Bytes per second as a rate is written, which is bits per second. */
function rateText(rate: number | undefined): string | undefined {
  if (rate === undefined) return undefined
  const kbit = (rate * 8) / 1000
  return kbit >= 1000 ? `${kbit / 1000}Mbit` : `${kbit}kbit`
}
