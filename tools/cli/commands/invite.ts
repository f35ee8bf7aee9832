import { Command, Option } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'
import { parseAddress, parseCount, parseDuration, parsePlace } from '../parse.ts'

/** `mesh invite`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('invite'))
    .description('print a token with which machines can join; `mesh seed` or `mesh up` must be running here')
    .addOption(
      new Option('--ttl <time>', 'how long it can be used: 15m, 1h, 2d')
        .argParser(parseDuration)
        .default(3_600_000, '1h'),
    )
    .option('--uses <n>', 'how many machines can use it', parseCount, 1)
    .addOption(
      new Option('--role <role>', 'an operator may reset the others and read their receipts')
        .choices(['machine', 'operator'])
        .default('machine'),
    )
    .option('--site <name>', 'network on the near side of an uplink (default: the master’s)', parsePlace)
    .option('--group <name>', 'machines that are reset together, such as a room (default: the site)', parsePlace)
    .option(
      '--address <multiaddr>',
      'where this machine is reached from afar, such as a forwarded port (repeatable)',
      (text: string, before: string[] = []) => [...before, parseAddress(text)],
    )
    .addHelpText('after', '\nExamples:\n  mesh invite --ttl 2h --uses 24 --group lab-a\n  mesh invite --role operator')
    .action(action(run))
}

interface Options {
  ttl: number
  uses: number
  role: 'machine' | 'operator'
  site?: string
  group?: string
  address?: string[]
}

async function run(context: Context, options: Options): Promise<void> {
  const { invite } = await import('../../../node/agent/run/ask-running.ts')
  const { ttl, uses, role, site, group, address: addresses = [] } = options
  const invited = await invite(context.stateDir, {
    ttlMs: ttl,
    uses,
    role,
    addresses,
    ...(site === undefined ? {} : { site }),
    ...(group === undefined ? {} : { group }),
  })
  // With --json it is part of the result.
  if (invited.warning !== undefined && !context.output.json)
    context.output.event({ type: 'warning', text: invited.warning })
  context.output.result(invited, invited.token)
}
