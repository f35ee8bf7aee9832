import { Command, Option } from 'commander'
import type { Invitations, Revoked } from '../../../node/agent/run/invitation-desk.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { shortKeyId } from '../../../protocol/key-code.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { formatTable } from '../format.ts'
import { parseAddress, parseCount, parseDuration, parsePlace, parseText } from '../parse.ts'

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
    .option('--list', 'list the invitations, and who has joined by them', false)
    .option('--revoke <id>', 'take back the invitation whose id begins so, or all of them', parseText)
    .option('--dry-run', 'with --revoke: only say what would be taken back', false)
    .addHelpText(
      'after',
      '\nExamples:\n  mesh invite --ttl 2h --uses 24 --group lab-a\n  mesh invite --role operator\n  mesh invite --revoke 5f0c',
    )
    .action(action(run))
}

interface Options {
  ttl: number
  uses: number
  role: 'machine' | 'operator'
  site?: string
  group?: string
  address?: string[]
  list: boolean
  revoke?: string
  dryRun: boolean
}

async function run(context: Context, options: Options): Promise<void> {
  if (options.list && options.revoke !== undefined) throw new MeshError('USAGE', 'give one of --list and --revoke')
  if (options.dryRun && options.revoke === undefined) throw new MeshError('USAGE', '--dry-run goes with --revoke')
  if (options.list) return listInvitations(context)
  if (options.revoke !== undefined) return revoke(context, options.revoke, options.dryRun)
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

async function listInvitations(context: Context): Promise<void> {
  const { invitations } = await import('../../../node/agent/run/ask-running.ts')
  const known = await invitations(context.stateDir)
  const none = 'No invitation is remembered.'
  context.output.result(known, known.invitations.length === 0 ? none : tableOf(known.invitations))
}

async function revoke(context: Context, id: string, dryRun: boolean): Promise<void> {
  const { revokeInvitation } = await import('../../../node/agent/run/ask-running.ts')
  const revoked = await revokeInvitation(context.stateDir, id, dryRun)
  context.output.result(revoked, describeRevoked(revoked))
}

function describeRevoked({ invitations, dryRun }: Revoked): string {
  if (invitations.length === 0) return 'No invitation can still be used.'
  const what = dryRun ? 'These would be taken back' : 'Taken back; nobody joins by these any more'
  return `${what}:\n${tableOf(invitations)}`
}

function tableOf(invitations: Invitations['invitations']): string {
  return formatTable([
    ['id', 'state', 'used', 'until', 'for', 'joined by it'],
    ...invitations.map(({ id, state, uses, usedBy, expires, role = 'machine', group }) => [
      shortKeyId(id),
      state,
      `${usedBy.length} of ${uses}`,
      formatTime(expires),
      group === undefined ? role : `${role}, group ${group}`,
      usedBy.join(', '),
    ]),
  ])
}
