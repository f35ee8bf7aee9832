import type { LabMachine } from '../../node/agent/lab/describe-lab.ts'
import type { LabReport } from '../../node/agent/operate/look-at-lab.ts'
import { formatTime } from '../../protocol/local-time.ts'
import { formatBytes, formatSeconds, formatTable } from './format.ts'
import { LAB_NAMED } from './limits.ts'

const HEADING = ['machine', 'group', 'state', 'disk', 'next', 'last restore', 'took', 'received']
const WIDE = ['from', 'log', 'device', 'version', 'addresses']

/** `mesh lab`, for people. */
export function describeLab(report: LabReport, { wide, now }: { wide: boolean; now: number }): string {
  const { site, counts, trouble, machines } = report
  const { machines: all, right, warning, critical, off } = counts
  const parts = [
    `${all} machines`,
    `${right} right`,
    ...(critical > 0 ? [`${critical} wrong`] : []),
    ...(warning > 0 ? [`${warning} to look at`] : []),
    ...(off > 0 ? [`${off} off`] : []),
  ]
  const rows = machines.map((machine) => [...rowOf(machine, now), ...(wide ? moreOf(machine) : [])])
  const table = rows.length === 0 ? [] : [formatTable([[...HEADING, ...(wide ? WIDE : [])], ...rows])]
  const troubles = machines.flatMap(({ name, trouble: why }) => why.map((text) => `${name}: ${text}`))
  return [
    `Site ${site}: ${parts.join(', ')}.`,
    ...trouble.map((text) => `The site: ${text}.`),
    ...troubles.map((text) => `  ${text}`),
    ...(table.length === 0 ? [] : ['', ...table]),
  ].join('\n')
}

function rowOf(machine: LabMachine, now: number): string[] {
  const { name, group, disk, restore } = machine
  return [
    name,
    group,
    stateOf(machine, now),
    disk === undefined ? '' : `${disk.image} ${disk.release}${disk.whole ? '' : ', not whole'}`,
    nextOf(machine),
    restore === undefined ? '' : restore.verified ? timeOf(restore.at) : `NOT verified ${timeOf(restore.at)}`.trim(),
    restore === undefined ? '' : formatSeconds(restore.seconds),
    restore?.received === undefined ? '' : formatBytes(restore.received),
  ]
}

const timeOf = (at: string | undefined): string => (at === undefined ? 'at an unknown time' : formatTime(at))

function stateOf({ state, seenAt, inUse, resetting }: LabMachine, now: number): string {
  if (state === 'busy') return 'on, busy'
  if (state === 'on') return `on${resetting === true ? ', resets soon' : inUse === true ? ', in use' : ''}`
  return state === 'off' && seenAt !== undefined ? `off ${formatSeconds((now - Date.parse(seenAt)) / 1000)}` : state
}

/** The release that the next restore brings. */
function nextOf({ disk, newest, staged }: LabMachine): string {
  if (disk === undefined || newest === undefined || newest <= disk.release) return ''
  if (staged?.release !== newest) return `${newest}`
  if (staged.done) return `${newest} ready`
  return `${newest} ${Math.floor((100 * (staged.staged ?? 0)) / Math.max(1, staged.wanted ?? 1))} %`
}

function moreOf({ restore, device, version, addresses }: LabMachine): string[] {
  const from = (restore?.from ?? []).toSorted((a, b) => b.blocks - a.blocks)
  const rest = from.length > LAB_NAMED ? ` +${from.length - LAB_NAMED}` : ''
  const named = from.slice(0, LAB_NAMED).map(({ name, blocks }) => `${name} ${blocks}`)
  return [`${named.join(', ')}${rest}`, restore?.log ?? '', device ?? '', version ?? '', (addresses ?? []).join(' ')]
}

const WORDS = { ok: 'OK', warning: 'WARNING', critical: 'CRITICAL' } as const

/** One line, as plugins of Nagios and Checkmk print it: what is wrong, then figures (https://www.monitoring-plugins.org, guidelines). */
export function pluginLine({ level, counts, trouble, machines }: LabReport): string {
  const { machines: all, right, warning, critical, off } = counts
  const found = [...trouble, ...machines.flatMap(({ name, trouble: why }) => why.map((text) => `${name} ${text}`))]
  const more = found.length > LAB_NAMED ? `, and ${found.length - LAB_NAMED} more` : ''
  const parts = [
    ...(critical > 0 ? [`${critical} of ${all} machines wrong`] : []),
    ...(warning > 0 ? [critical > 0 ? `${warning} to look at` : `${warning} of ${all} machines to look at`] : []),
  ]
  const head = parts.length === 0 ? `${right} machines right` : parts.join(', ')
  const text = found.length === 0 ? head : `${head}: ${found.slice(0, LAB_NAMED).join('; ')}${more}`
  const figures = Object.entries({ right, warning, critical, off }).map(
    ([name, value]) => `${name}=${value};;;0;${all}`,
  )
  // A bar separates text and figures.
  return `MESH ${WORDS[level]} - ${text.replaceAll('|', '/').replaceAll(/\s+/g, ' ')} | ${figures.join(' ')}`
}
