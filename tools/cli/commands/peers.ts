import { Command } from 'commander'
import { describeNode, type SharedIdentity } from '../../../node/agent/mesh/identity-watch.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { formatBytes, formatTable } from '../format.ts'

/** `mesh peers`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('peers'))
    .description('list the members of the site, as the running command sees them')
    .addHelpText('after', '\nExample:\n  mesh peers')
    .action(action(run))
}

async function run(context: Context): Promise<void> {
  const { peers } = await import('../../../node/agent/run/ask-running.ts')
  const result = await peers(context.stateDir)
  const rows = result.peers.map((peer) => [
    peer.name,
    peer.role,
    peer.site === peer.group ? peer.site : `${peer.site}, ${peer.group}`,
    peer.connected ? 'connected' : 'away',
    String(peer.held),
    String(peer.blocks),
    formatBytes(peer.bytes),
    [
      ...(peer.bad > 0 ? [`${peer.bad} wrong: banned`] : []),
      ...(peer.twins === undefined ? [] : ['see below']),
      ...(peer.macNow === undefined ? [] : [`other network cards: ${peer.macNow.join(', ')}`]),
    ].join(', '),
  ])
  const shared = result.peers.flatMap(({ name, twins }) => (twins === undefined ? [] : [describeShared(name, twins)]))
  const heading = ['name', 'role', 'site, group', 'state', 'holds', 'blocks', 'received', '']
  context.output.result(
    result,
    rows.length === 0 ? 'This machine is the only member.' : [formatTable([heading, ...rows]), ...shared].join('\n'),
  )
}

function describeShared(name: string, { machines, at }: SharedIdentity): string {
  return `warning: ${machines.length} machines run with the key of ${name} (noticed ${formatTime(at)}): ${machines.map(describeNode).join('; ')}`
}
