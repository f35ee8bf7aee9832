import { Command } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'
import { parseCount, parseDuration } from '../parse.ts'

export function command(): Command {
  return withCommonOptions(new Command('invite'))
    .description('print a token with which machines can join; `mesh seed` or `mesh up` must be running here')
    .option('--ttl <time>', 'how long it can be used: 15m, 1h, 2d', parseDuration, 3_600_000)
    .option('--uses <n>', 'how many machines can use it', parseCount, 1)
    .addHelpText('after', '\nExample:\n  mesh invite --ttl 2h --uses 24')
    .action(action(run))
}

async function run(context: Context, options: { ttl: number; uses: number }): Promise<void> {
  const { invite } = await import('../../node/agent/status.ts')
  const invited = await invite(context.stateDir, { ttlMs: options.ttl, uses: options.uses })
  context.output.result(invited, invited.token)
}
