import { isAbsolute } from 'node:path'
import { InvalidArgumentError } from 'commander'
import {
  parseAddress,
  parseCount,
  parseDuration,
  parseHolders,
  parseImage,
  parseLanguage,
  parseMaxCpu,
  parseMaxPeers,
  parseMaxUpload,
  parseNice,
  parsePlace,
  parsePolicy,
  parseSize,
  parseStageRate,
  parseSystem,
  parseText,
  parseUplink,
  parseWarning,
  parseWindow,
} from '../parse.ts'

/** The kind of a value in the file: a string; a number, bare or as a string; true or false; a list of strings. */
export type ConfigKind = 'text' | 'number' | 'boolean' | 'list'

/** One key of the configuration file. */
export interface ConfigKey<Value, Kind extends ConfigKind = ConfigKind> {
  readonly kind: Kind
  /** Reads one text; of a list each entry. Errors: InvalidArgumentError with a sentence that says what is allowed. */
  readonly parse: (text: string) => Value
  /** Name by which commander knows the option that says the same, whatever command has it. */
  readonly option: string
  /** Set if the option means this only in these commands. */
  readonly commands?: readonly string[]
  /** The value if nobody says anything, for people. */
  readonly fallback: string
}

/** A path must be absolute: a file that is read at boot has no current directory. */
const asPath = (text: string): string => {
  if (!isAbsolute(text)) throw new InvalidArgumentError('Give an absolute path.')
  return text
}

const asBoolean = (text: string): boolean => text === 'true'

function key<Kind extends ConfigKind, Value>(
  kind: Kind,
  parse: (text: string) => Value,
  fallback: string,
  option: string,
  commands?: readonly string[],
): ConfigKey<Value, Kind> {
  return { kind, parse, fallback, option, ...(commands === undefined ? {} : { commands }) }
}

/**
 * Every key of the configuration file, `KEY` or `TABLE.KEY`. A key is the default of its option wherever a command has
 * that option, and is then read by the option's own parser. Otherwise it is asked for by name ({@link ConfigValues}).
 */
export const CONFIG_KEYS = {
  state: key('text', asPath, '/var/lib/lab-mesh', 'state'),
  disk: key('text', asPath, 'none', 'disk', ['join', 'enrol']),
  image: key('text', parseImage, 'none', 'image', ['seed', 'join', 'enrol', 'restore', 'verify']),
  listen: key('list', parseAddress, '/ip4/0.0.0.0/tcp/7433 and /ip6/::/tcp/7433', 'listen'),
  mdns: key('boolean', asBoolean, 'true', 'mdns'),
  site: key('text', parsePlace, 'lab', 'site', ['seed']),
  group: key('text', parsePlace, 'the site', 'group', []),
  uplink: key('text', parseUplink, 'none', 'uplink'),
  'uplink-strict': key('boolean', asBoolean, 'false', 'uplinkStrict'),
  'serving.max-upload': key('text', parseMaxUpload, 'none', 'maxUpload'),
  'serving.max-cpu': key('text', parseMaxCpu, 'none', 'maxCpu'),
  'serving.max-peers': key('number', parseMaxPeers, 'none', 'maxPeers'),
  'serving.nice': key('number', parseNice, '10', 'nice'),
  'serving.in-use-check': key('text', parseText, 'who', 'inUseCheck'),
  'stage.max-space': key('number', parseSize, '4G', 'stageSpace'),
  'stage.max-download': key('text', parseStageRate, 'none', 'stageRate'),
  'reset.command': key('text', parseText, 'systemctl reboot', 'resetCommand'),
  'reset.warn-command': key('text', parseText, 'wall', 'warnCommand'),
  'reset.warning': key('text', parseWarning, '5m', 'warning'),
  'hooks.directory': key('text', asPath, 'none', 'hooks'),
  'hooks.timeout': key('text', parseDuration, '1m', 'hookTimeout'),
  'roll.window': key('text', parseWindow, 'any time', 'window'),
  'roll.holders': key('number', parseHolders, '2', 'holders'),
  'roll.wave': key('number', parseCount, '8', 'wave'),
  'roll.stop-after': key('number', parseCount, '3', 'stopAfter'),
  'boot.on-failure': key('text', parsePolicy, 'hold', 'onFailure'),
  'boot.lang': key('text', parseLanguage, 'en', 'lang'),
  'boot.text': key('text', parseText, 'none', 'text', ['run']),
  'boot.disk': key('text', asPath, 'the only built-in one', 'bootDisk', ['run']),
  'boot.master': key('list', parseAddress, 'found by multicast DNS', 'master', ['run']),
  'boot.entry': key('text', parseText, 'none', 'entry', ['run']),
  'boot.second': key('text', asPath, 'none', 'second', ['run']),
  'boot.default-system': key('number', parseSystem, '1', 'defaultSystem', ['run']),
  'boot.choice-wait': key('text', parseDuration, '10s', 'choiceWait', ['run']),
} as const

/** A key, such as `disk` or `serving.nice`. */
export type ConfigName = keyof typeof CONFIG_KEYS
type Read<Key> =
  Key extends ConfigKey<infer Value, 'list'> ? readonly Value[] : Key extends ConfigKey<infer Value> ? Value : never

/**
 * The values of a file as their parsers read them: times in milliseconds, sizes in bytes, rates in bytes per second.
 */
export type ConfigValues = { readonly [Name in ConfigName]?: Read<(typeof CONFIG_KEYS)[Name]> }

/** All keys, in the order of the table above. */
export const CONFIG_NAMES = Object.keys(CONFIG_KEYS) as readonly ConfigName[]
