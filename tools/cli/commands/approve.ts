import { readFile } from 'node:fs/promises'
import { Command } from 'commander'
import type { Approved } from '../../../node/agent/run/ask-running.ts'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { parseMachineList } from '../machine-list.ts'
import { parseCode, parseDuration, parseMachine, parsePlace } from '../parse.ts'

interface Options {
  code?: string
  all: boolean
  list?: string
  ttl?: number
  as?: string
  site?: string
  group?: string
  wipe: boolean
}

/** `mesh approve`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('approve'))
    .description(
      'let machines in that ask to be enrolled; `mesh seed` or `mesh up` must be running here, on the master',
    )
    .argument('[name]', 'name of a machine that waits, as `mesh machines` lists it')
    .option('--code <code>', 'the machine that shows this code', parseCode)
    .option('--all', 'all machines that wait', false)
    .option('--list <file>', 'machines of a CSV file: network card, name, group; they need not wait yet')
    .option(
      '--ttl <time>',
      'with --all: whoever asks within this time, too; with --list: how long it holds',
      parseDuration,
    )
    .option('--as <name>', 'name that one machine gets instead of the one it proposes', parseMachine)
    .option('--site <name>', 'network on the near side of an uplink (default: the master’s)', parsePlace)
    .option('--group <name>', 'machines that are reset together, such as a room (default: the site)', parsePlace)
    .option('--wipe', 'what their disks hold may be destroyed', false)
    .addHelpText(
      'after',
      '\nExamples:\n  mesh approve pc07\n  mesh approve --all --ttl 2h --group lab-a\n  mesh approve --list machines.csv --wipe',
    )
    .action(action(run))
}

async function run(context: Context, options: Options, name: string | undefined): Promise<void> {
  const { code, all, list, as, ttl, site, group, wipe } = options
  const ways = [name, code, all || undefined, list].filter((one) => one !== undefined)
  if (ways.length !== 1) throw new MeshError('USAGE', 'give one of NAME, --code, --all and --list')
  if (as !== undefined && name === undefined && code === undefined)
    throw new MeshError('USAGE', '--as names one machine: give its NAME or --code, too')
  if (ttl !== undefined && !all && list === undefined) throw new MeshError('USAGE', '--ttl goes with --all or --list')
  const { approve } = await import('../../../node/agent/run/ask-running.ts')
  const entries = list === undefined ? undefined : parseMachineList(list, await read(list))
  const asked = { name, code, as, site, group, ttlMs: ttl, ...(all ? { all } : {}), ...(wipe ? { wipe } : {}) }
  const approved = await approve(context.stateDir, { ...asked, list: entries })
  context.output.result(approved, describe(approved))
}

async function read(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: unknown) => {
    throw new MeshError('USAGE', `${file} cannot be read (${errnoOf(cause)})`, { cause })
  })
}

function describe({ machines, left, listed, expires }: Approved): string {
  const until = expires === undefined ? '' : ` until ${formatTime(expires)}`
  const lines = [
    ...machines.map(
      ({ name, code, replaces, wipe }) =>
        `Approved: ${name}, code ${code}.${replaces === undefined ? '' : ` The old key of ${replaces} goes out.`}${wipe ? ' Its disk may be wiped.' : ''}`,
    ),
    ...left.map(({ name, code, why }) => `Not approved: ${name}, code ${code}: ${why}`),
    ...(listed > 0
      ? [`Approved${until}: ${listed === 1 ? '1 network card' : `${listed} network cards`} of the list.`]
      : []),
    ...(listed === 0 && expires !== undefined ? [`Approved${until}: whoever asks.`] : []),
  ]
  return lines.length === 0 ? 'No machine waits to be enrolled.' : lines.join('\n')
}
