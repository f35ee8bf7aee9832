import { Command } from 'commander'
import { listedAt, type TimedReceipt } from '../../../node/agent/receipts/receipt-time.ts'
import { describeWentBack, type WentBack } from '../../../node/agent/receipts/went-back.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { type CsvCell, type CsvStyle, formatCsv, PLAIN_CSV } from '../csv.ts'
import { describeOffenders } from '../describe-offenders.ts'
import { formatBytes, formatSeconds, formatTable } from '../format.ts'
import { parseCsvStyle, parseSince } from '../parse.ts'

interface Options {
  since?: number
  machine?: string
  now: boolean
  csv?: true | CsvStyle
}

/** `mesh receipts`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('receipts'))
    .description('list what restores did here; on the master and operators’ machines those of the whole site')
    .option('--since <when>', 'only restores since then: 2026-11-01, or 3d for the last three days', parseSince)
    .option('--machine <name>', 'only those of one machine')
    .option('--now', 'fetch first what the other machines have (else it is what was gathered so far)', false)
    .option(
      '--csv [language]',
      'as CSV; with a language such as de-DE as spreadsheets of that language read it',
      parseCsvStyle,
    )
    .addHelpText(
      'after',
      '\nExamples:\n  mesh receipts --since 1d\n  mesh receipts --now --csv > november.csv\n  mesh receipts --csv de-DE > november.csv',
    )
    .action(action(run))
}

async function run(context: Context, options: Options): Promise<void> {
  const { receipts } = await import('../../../node/agent/operate/list-receipts.ts')
  const { since, machine, now } = options
  const result = await receipts({
    ...context.agent,
    now,
    ...(since === undefined ? {} : { since }),
    ...(machine === undefined ? {} : { machine }),
  })
  const { csv } = options
  if (csv !== undefined && !context.output.json)
    process.stdout.write(describeCsv(result.receipts, csv === true ? PLAIN_CSV : csv))
  else context.output.result(result, [describe(result.receipts), ...result.wentBack.map(describeNoticed)].join('\n'))
}

function describe(receipts: readonly TimedReceipt[]): string {
  if (receipts.length === 0) return 'No receipts.'
  const heading = ['machine', 'began', 'image', 'release', 'took', 'restored', 'staged', 'received', 'from', 'result']
  const rows = receipts.map((receipt) => {
    const { machine, image, release, ms, result } = receipt
    const time = listedAt(receipt)
    return [
      machine,
      time === undefined ? 'unknown' : formatTime(time),
      image ?? '',
      String(release ?? ''),
      formatSeconds(ms / 1000),
      String(result?.blocks.dirty ?? ''),
      String(result?.blocks.staged ?? ''),
      result === null ? '' : formatBytes(result.bytes.received),
      result === null || result.peers.length === 0 ? '' : `${result.peers.length}`,
      outcomeOf(receipt),
    ]
  })
  return formatTable([heading, ...rows])
}

function describeNoticed({ machine, number, at }: WentBack): string {
  return `warning: ${describeWentBack({ machine, number })} (noticed ${formatTime(at)})`
}

function outcomeOf({ verified, failure, result, offenders, clockWrong, startedAt, named, gone }: TimedReceipt): string {
  const parts = [verified ? 'verified' : 'NOT verified']
  if (named !== undefined) parts.push(`named ${named} then`)
  if (gone === true) parts.push('no member any more')
  if (failure !== null) parts.push(failure.message)
  const missed = result?.log.missed ?? null
  if (missed !== null) parts.push(`log missed block ${missed}`)
  const movedFrom = result?.log.movedFrom ?? null
  if (movedFrom !== null) parts.push(`moved from release ${movedFrom}`)
  const beyond = result?.beyondImage ?? 0
  if (beyond > 0) parts.push(`${formatBytes(beyond)} behind the image`)
  const bad = (result?.peers ?? []).filter((peer) => peer.bad > 0)
  if (bad.length > 0) parts.push(`wrong blocks from ${bad.map(({ name }) => name).join(', ')}`)
  const lost = describeOffenders(offenders)
  if (lost !== '') parts.push(lost)
  if (clockWrong === true)
    parts.push(`its clock is wrong (${formatTime(startedAt)}), so the time is when the receipt came here`)
  return parts.join(', ')
}

const COLUMNS: readonly (readonly [string, (receipt: TimedReceipt) => CsvCell | null | undefined])[] = [
  ['machine', (it) => it.machine],
  ['number', (it) => it.number],
  ['began', (it) => ({ time: Date.parse(it.startedAt) })],
  ['received', (it) => (it.receivedAt === undefined ? '' : { time: Date.parse(it.receivedAt) })],
  ['clock', (it) => (it.clockWrong === true ? 'wrong' : '')],
  ['seconds', (it) => it.ms / 1000],
  ['image', (it) => it.image],
  ['release', (it) => it.release],
  ['verified', (it) => (it.verified ? 'yes' : 'no')],
  ['failure code', (it) => it.failure?.code],
  ['failure', (it) => it.failure?.message],
  ['blocks', (it) => it.result?.blocks.total],
  ['blocks restored', (it) => it.result?.blocks.dirty],
  ['blocks zero', (it) => it.result?.blocks.zero],
  ['blocks local', (it) => it.result?.blocks.local],
  ['blocks staged', (it) => it.result?.blocks.staged],
  ['blocks copied', (it) => it.result?.blocks.copied],
  ['blocks fetched', (it) => it.result?.blocks.fetched],
  ['blocks audited', (it) => it.result?.blocks.audited],
  ['bytes read', (it) => it.result?.bytes.read],
  ['bytes written', (it) => it.result?.bytes.written],
  ['bytes received', (it) => it.result?.bytes.received],
  ['bytes beyond image', (it) => it.result?.beyondImage],
  ['from', (it) => it.result?.peers.map(({ name, blocks }) => `${name}: ${blocks}`).join('; ')],
  ['log', (it) => it.result?.log.source],
  ['log state', (it) => it.result?.log.state],
  ['log reason', (it) => it.result?.log.reason],
  ['log missed block', (it) => it.result?.log.missed],
  ['moved from release', (it) => it.result?.log.movedFrom],
  ['peer id', (it) => it.id],
  ['named', (it) => it.named],
  ['member', (it) => (it.gone === true ? 'no' : '')],
]

function describeCsv(receipts: readonly TimedReceipt[], style: CsvStyle): string {
  const rows = receipts.map((receipt) => COLUMNS.map(([, value]) => value(receipt) ?? ''))
  return formatCsv([COLUMNS.map(([name]) => name), ...rows], style)
}
