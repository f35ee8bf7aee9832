import type { PlannedRoll, RollResult } from '../../node/agent/roll/roll-machines.ts'
import type { ReportRow } from '../../node/roll/roll-report.ts'
import { formatSeconds, formatTable } from './format.ts'

/** Peers that are named of those that sent a machine its blocks. */
const SHOWN_PEERS = 3

/** `mesh roll plan`, for people. */
export function describePlan({ group, image, release, waves, rest }: PlannedRoll): string {
  const lines = [`Group ${group}, to release ${release} of ${image}:`]
  for (const [i, wave] of waves.entries()) lines.push(`  wave ${i + 1}: ${wave.join(' ')}`)
  if (waves.length === 0) lines.push('  nobody can be reset now')
  for (const { machine, why } of rest) lines.push(`  not: ${machine} ${why}`)
  return lines.join('\n')
}

/** Describes a roll and what became of its machines, for people. */
export function describeRoll({ roll, report, heard }: RollResult): string {
  const { group, state, why, image, release, operatorName, attended, machines } = roll
  const who = attended ? `run by ${operatorName}` : `last run by ${operatorName}`
  const { missing = [] } = report ?? {}
  const but = state !== 'done' || missing.length === 0 ? '' : `, but missing: ${missing.join(', ')}`
  const lines = [
    `Roll of ${group} to release ${release} of ${image}, ${who}: ${state}${why === '' ? '' : ` (${why})`}${but}.`,
    heard === false ? 'Nobody is at it now: `mesh roll resume` goes on with it.' : '',
    report === undefined ? '' : formatTable([HEADING, ...report.rows.map(rowOf)]),
    `${['verified', 'failed', 'skipped']
      .map((turn) => `${machines.filter((one) => one.turn === turn).length} ${turn}`)
      .join(', ')}, of ${machines.length} machines.`,
  ]
  return lines.filter((line) => line !== '').join('\n')
}

const HEADING = ['machine', 'state', 'release', 'verified', 'blocks', 'time', 'from', 'log misses', 'why']

function rowOf({ machine, turn, why, release, verified, blocks, seconds, from = [], missed }: ReportRow): string[] {
  const known = release !== undefined
  const sources = from.toSorted((a, b) => b.blocks - a.blocks).map(({ name, blocks: sent }) => `${name} ${sent}`)
  const more = sources.length > SHOWN_PEERS ? ` +${sources.length - SHOWN_PEERS}` : ''
  return [
    machine,
    turn,
    known ? String(release) : '',
    known ? (verified === true ? 'yes' : 'no') : '',
    known ? String(blocks) : '',
    seconds === undefined ? '' : formatSeconds(seconds),
    `${sources.slice(0, SHOWN_PEERS).join(', ')}${more}`,
    known ? (missed === undefined ? '0' : `1 (block ${missed})`) : '',
    why,
  ]
}
