/**
 * The folder tools/netlab is a lab of real processes in network namespaces with links of a chosen speed: `npm run lab`.
 * - `network` makes the namespaces; `shaped-lab` runs `mesh` in them.
 * - `prepare` brings the machines to where a scenario begins: `provision`, `restore`, `update` or `roll`.
 * - `run-lab` measures, `ideal` says what the content alone asks for, `lab-report` prints both.
 * - `model-image`, `system-files` and `dirt` make what stands on the disks.
 */

import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { EXIT, isMeshError } from '../../protocol/errors.ts'
import { parseRate, parseSize } from '../cli/parse.ts'
import { DIRT_KINDS } from './dirt.ts'
import { CONTENTS, type LabOptions, LOGS, SOURCES } from './lab-options.ts'
import { asJson, asText } from './lab-report.ts'
import { addRollCommand } from './roll-command.ts'
import { runLab } from './run-lab.ts'

const MIB = 1024 ** 2
/** The subnet of the LAN, without master and router. */
const MOST_MACHINES = 200
const MOST_SHARE = 0.5
const UPLINK = 20e6

interface Flags {
  machines: number
  size: number
  rate: number
  uplink?: number
  from?: LabOptions['from']
  content: LabOptions['content']
  seed: number
  mdns: boolean
  build: boolean
  json: boolean
  share?: number
  dirt?: LabOptions['dirt']
  log?: LabOptions['log']
  staged?: boolean
  killFetcher: boolean
}

/** One command for each scenario; most options are the same. */
function program(): Command {
  const lab = new Command('npm run lab --')
    .description('A lab on one machine: mesh processes in network namespaces, cabled by links of a known speed.')
    .addHelpText('after', NOTES)
  common(lab, 'provision', 'machines that hold nothing yet')
  common(lab, 'restore', 'machines on which a session has written something')
    .addOption(given('--share <part>', 'part of the image that is dirtied', parseShare, '0.02'))
    .addOption(new Option('--dirt <kind>', 'single 4 KiB, or runs of 1 MiB').choices(DIRT_KINDS).default('uniform'))
    .addOption(new Option('--log <log>', 'a write log knows the dirt, or there is none').choices(LOGS).default('known'))
  common(lab, 'update', 'machines that hold the release before')
    .addOption(given('--share <part>', 'part of the image that is new', parseShare, '0.05'))
    .option('--staged', 'they fetch it ahead, while they run, and are restarted when all have it', false)
  addRollCommand(lab, { parseMachines, parseSeed, whileRunning })
  return lab
}

const NOTES = `
Examples:
  npm run lab -- provision --machines 8
  npm run lab -- restore --machines 8 --share 0.02 --dirt clustered
  npm run lab -- update --machines 4 --from central --uplink 20mbit
  npm run lab -- update --staged --machines 8 --from central
  npm run lab -- roll --machines 24

Needs root. Disks are made in the system's temporary directory; TMPDIR names another one.`

function common(parent: Command, name: LabOptions['scenario'], description: string): Command {
  return parent
    .command(name)
    .description(description)
    .option('--machines <n>', 'how many of them', parseMachines, 8)
    .addOption(given('--size <bytes>', 'size of the image', parseImageSize, '256M'))
    .addOption(
      given(
        '--rate <rate>',
        'of each port, in each direction: 100mbit, 1gbit, none',
        (text) => parseRate(text),
        '100mbit',
      ),
    )
    .option('--uplink <rate>', 'between the LAN and central (default: 20mbit)', (text) => parseRate(text))
    .addOption(
      new Option('--from <source>', 'where the image is: on the LAN, behind the uplink, both')
        .choices(SOURCES)
        .default('master'),
    )
    .addOption(
      new Option('--content <kind>', "of the image: incompressible, or this machine's /usr/lib and /usr/share")
        .choices(CONTENTS)
        .default('random'),
    )
    .option(
      '--kill-fetcher',
      'kill the machine that fetches most over the uplink in the middle, and start it again',
      false,
    )
    .option('--seed <n>', 'the same seed gives the same image and the same dirt', parseSeed, 1)
    .option('--mdns', 'machines also look for one another by multicast DNS', false)
    .option('--no-build', 'run the sources instead of the bundle')
    .option('--json', 'print the result as one line of JSON', false)
    .action(async (flags: Flags) => run(optionsOf(name, flags), flags.json))
}

/** An option whose default is shown as one would give it. */
function given<T>(flags: string, what: string, parse: (text: string) => T, byDefault: string): Option {
  return new Option(flags, what).default(parse(byDefault), byDefault).argParser(parse)
}

/** Errors: CommanderError for flags that do not go together. */
function optionsOf(scenario: LabOptions['scenario'], flags: Flags): LabOptions {
  const { rate, uplink = UPLINK, from = 'master', share = 0, dirt = 'uniform', log = 'known' } = flags
  const { staged = false } = flags
  if (from === 'master' && flags.uplink !== undefined)
    throw new CommanderError(EXIT.usage, 'lab.uplink', '--uplink goes with --from central or --from both')
  const { machines, size, content, seed, mdns, build, killFetcher } = flags
  if (killFetcher && from !== 'central')
    throw new CommanderError(EXIT.usage, 'lab.killFetcher', '--kill-fetcher goes with --from central')
  const limits = { ...(rate > 0 ? { rate } : {}), ...(uplink > 0 ? { uplink } : {}) }
  return {
    scenario,
    machines,
    size,
    ...limits,
    from,
    content,
    seed,
    mdns,
    build,
    share,
    dirt,
    log,
    staged,
    killFetcher,
  }
}

function run(options: LabOptions, json: boolean): Promise<void> {
  return whileRunning(async (signal, say) => {
    const result = await runLab(options, signal, say)
    return json ? JSON.stringify(asJson(result)) : asText(result)
  })
}

/** Prints what `work` returns; Ctrl-C ends it in good order. */
async function whileRunning(
  work: (signal: AbortSignal, say: (line: string) => void) => Promise<string>,
): Promise<void> {
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop.abort())
  try {
    process.stdout.write(`${await work(stop.signal, (line) => void process.stderr.write(`${line}\n`))}\n`)
  } catch (error) {
    if (!stop.signal.aborted) throw error
    process.stderr.write('lab: interrupted\n')
    process.exitCode = EXIT.interrupted
  }
}

function parseMachines(text: string): number {
  if (!/^\d{1,4}$/.test(text) || Number(text) < 1 || Number(text) > MOST_MACHINES)
    throw new InvalidArgumentError(`Give a whole number from 1 to ${MOST_MACHINES}.`)
  return Number(text)
}

function parseImageSize(text: string): number {
  const size = parseSize(text)
  if (size < MIB || size % MIB !== 0) throw new InvalidArgumentError('Give whole MiB, such as 256M or 1G.')
  return size
}

function parseSeed(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Give a whole number of at most 9 digits.')
  return Number(text)
}

function parseShare(text: string): number {
  const share = Number(text)
  if (!/^[\d.]+$/.test(text) || !(share > 0 && share <= MOST_SHARE))
    throw new InvalidArgumentError(`Give a part such as 0.02, at most ${MOST_SHARE}.`)
  return share
}

// A reader that goes away (`| head -1`) must not keep the lab from tidying up.
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED') throw error
  })
try {
  const lab = program()
  for (const command of [lab, ...lab.commands]) command.exitOverride().configureOutput({ outputError: () => undefined })
  await lab.parseAsync(process.argv.slice(2), { from: 'user' })
} catch (error) {
  if (error instanceof CommanderError) {
    if (error.exitCode !== 0) {
      process.stderr.write(`lab: ${error.message.replace(/^error: /, '')}\n     See npm run lab -- --help.\n`)
      process.exitCode = EXIT.usage
    }
  } else {
    process.stderr.write(`lab: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = isMeshError(error) ? error.exitCode : EXIT.unexpected
  }
}
