import { Command } from 'commander'
import type { Status } from '../../../node/agent/answer/status.ts'
import { describeNode } from '../../../node/agent/mesh/identity-watch.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { formatBytes, formatSeconds } from '../format.ts'
import { PHASES } from '../output.ts'

/** `mesh status`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('status'))
    .description('show what this machine is, has and does')
    .addHelpText('after', '\nExample:\n  mesh status --json')
    .action(action(run))
}

async function run(context: Context): Promise<void> {
  const { status } = await import('../../../node/agent/run/ask-running.ts')
  const now = await status(context.stateDir, context.agent.configured)
  context.output.result(now, describe(now))
}

function describe(status: Status): string {
  const rows: [string, string][] = [
    ['machine', `${status.name} (${status.role}) of site ${status.site}${inGroup(status)}`],
    ...(status.removed === undefined ? [] : [['removed', describeRemoved(status.removed)] satisfies [string, string]]),
    ['peer id', status.id],
    ...(status.twins?.machines ?? []).map((twin): [string, string] => [
      'copy',
      `runs with the same key: ${describeNode(twin)}`,
    ]),
    ['running', status.running ? describeRunning(status) : 'no'],
    ...(status.work === undefined ? [] : [['at work', describeAtWork(status.work)] satisfies [string, string]]),
    ['disk', status.disk ?? 'none'],
    [
      'image',
      status.image === undefined
        ? 'none'
        : `${status.image} release ${status.release}, ${formatBytes(status.size ?? 0)}`,
    ],
  ]
  if (status.blocks !== undefined) {
    const { total, held, changed, unheld } = status.blocks
    rows.push(['blocks', `${held} of ${total} can be served`])
    if (changed > 0) rows.push(['changed', `${changed} blocks are no longer what was published or restored`])
    if (unheld > 0)
      rows.push(['missing', `${unheld} blocks nobody holds any more: run \`mesh seed\` again on the master`])
  }
  for (const { image, release, blocks } of status.others ?? []) {
    const changed = blocks.changed > 0 ? `, ${blocks.changed} changed` : ''
    rows.push(['also', `${image} release ${release}: ${blocks.held} of ${blocks.total} blocks can be served${changed}`])
  }
  if (status.staging !== undefined) rows.push(['staged', describeStaging(status.staging)])
  if (status.stage !== undefined) rows.push(['stage', describeStage(status.stage)])
  if (status.serving !== undefined) rows.push(['served', describeServing(status.serving)])
  rows.push(...describeTakers(status))
  for (const { name, until, reason } of status.banned ?? [])
    rows.push(['banned', `${name} until ${formatTime(until)}: it ${reason}`])
  for (const { site, in: into, out } of status.uplink ?? [])
    rows.push(['uplink', `site ${site}: ${describeCrossing(into)} came, ${describeCrossing(out)} went`])
  if (status.lastRestore !== undefined) {
    const { verified, release, startedAt, seconds, failure } = status.lastRestore
    const outcome = verified ? 'verified' : `NOT verified${failure === undefined ? '' : ` (${failure})`}`
    rows.push([
      'restored',
      `${formatTime(startedAt)}, release ${release ?? 'unknown'}, ${outcome}, ${formatSeconds(seconds)}`,
    ])
  }
  rows.push(['members', String(status.members)], ['metadata', `valid until ${formatTime(status.metadataExpires)}`])
  return rows.map(([name, value]) => `${name.padEnd(10)}${value}`).join('\n')
}

/** Who takes something of this machine now. */
function describeTakers({ clients = [], memberMost, callers }: Status): [string, string][] {
  const members = clients.filter(({ openBytes }) => openBytes > 0)
  return [
    ...members.map((client): [string, string] => ['asks', describeClient(client, memberMost)]),
    ...(callers === undefined ? [] : [['callers', describeCallers(callers)] satisfies [string, string]]),
  ]
}

function describeRemoved({ at }: NonNullable<Status['removed']>): string {
  const when = at === undefined ? '' : `at ${formatTime(at)}, `
  return `${when}this machine is no member any more; \`mesh join TOKEN --new-identity\` makes it one again`
}

function describeRunning({ command, pid, since, peers }: Status): string {
  const from = since === undefined ? '' : ` since ${formatTime(since)}`
  return `mesh ${command}, pid ${pid}${from}, ${peers} peers connected`
}

function describeAtWork({ phase, doneBytes, totalBytes, seconds }: NonNullable<Status['work']>): string {
  return `${PHASES[phase]}: ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)} after ${formatSeconds(seconds)}`
}

function inGroup({ group, site }: Status): string {
  return group === undefined || group === site ? '' : `, group ${group}`
}

function describeStaging({ release, staged, wanted, left, state, reason }: NonNullable<Status['staging']>): string {
  const parts = [`${staged} of ${wanted} blocks of release ${release}`]
  if (state === 'done') parts.push('the next restore switches to it')
  if (left > 0) parts.push(`there is no room for ${left}, which the restore fetches`)
  if (state === 'waiting') parts.push(`waits: ${reason}`)
  return parts.join('; ')
}

function describeStage({ blocks, bytes, dirtied }: NonNullable<Status['stage']>): string {
  const kept = `${blocks} blocks (${formatBytes(bytes)}) beside the disk`
  return dirtied === 0 ? kept : `${kept}; sessions have dirtied ${dirtied} blocks lately`
}

function describeCrossing(bytes: NonNullable<Status['uplink']>[number]['in']): string {
  const some = (['blocks', 'pages', 'metadata'] as const).filter((cause) => bytes[cause] > 0)
  return some.map((cause) => `${formatBytes(bytes[cause])} of ${cause}`).join(' and ') || 'nothing'
}

function describeClient(client: NonNullable<Status['clients']>[number], most: Status['memberMost']): string {
  const { name, connections, streams, openBytes, messagesPerSecond } = client
  // A command of an earlier version does not tell its bounds.
  const of = (bound: string | number | undefined): string => (bound === undefined ? '' : ` of ${bound}`)
  const open = `${formatBytes(openBytes)}${of(most && formatBytes(most.openBytes))} not answered yet`
  const paths = `${connections}${of(most?.connections)} connections, ${streams}${of(most?.streams)} streams`
  return `${name}: ${open}, ${messagesPerSecond.toFixed(0)} messages/s, ${paths}`
}

function describeCallers(callers: NonNullable<Status['callers']>): string {
  const { connections, mostConnections, waitingBytes, mostWaitingBytes } = callers
  const waiting = `${formatBytes(waitingBytes)} of ${formatBytes(mostWaitingBytes)} wait`
  return `${connections} of ${mostConnections} local programs, ${waiting}`
}

const CAPS = { rate: '--max-upload', cpu: 'the limit on the processor' } as const

function describeServing(serving: NonNullable<Status['serving']>): string {
  const { bytes, bytesPerSecond, clients, waiting, capped, inUse } = serving
  const parts = [formatBytes(bytes)]
  if (bytesPerSecond >= 1) parts.push(`${formatBytes(bytesPerSecond)}/s lately`)
  if (clients > 0) parts.push(clients === 1 ? '1 machine is served' : `${clients} machines are served`)
  if (waiting > 0) parts.push(waiting === 1 ? '1 waits' : `${waiting} wait`)
  if (capped !== undefined) parts.push(`held back by ${CAPS[capped]}`)
  if (inUse) parts.push('somebody uses this machine')
  return parts.join(', ')
}
