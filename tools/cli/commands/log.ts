import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Command } from 'commander'
import type { LogReport } from '../../../node/agent/log/log-control.ts'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { formatBytes } from '../format.ts'

/** `mesh log`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return new Command('log')
    .description('show, export or forget the write log of this machine’s disk')
    .addCommand(
      withCommonOptions(new Command('show'))
        .description('how much of the disk may differ from the release, where, since when')
        .addHelpText('after', '\nExample:\n  mesh log show')
        .action(action(show)),
    )
    .addCommand(
      withCommonOptions(new Command('export'))
        .description('the dirty units as JSON')
        .argument('[file]', 'write to this file')
        .addHelpText('after', '\nExample:\n  mesh log export dirty.json')
        .action(action(exportTo)),
    )
    .addCommand(
      withCommonOptions(new Command('forget'))
        .description('keep no log any more; every restore then reads the whole disk')
        .addHelpText('after', '\nExample:\n  mesh log forget')
        .action(action(forget)),
    )
}

async function show(context: Context): Promise<void> {
  const { showLog } = await import('../../../node/agent/log/log-control.ts')
  const report = await showLog(context.stateDir, context.agent.configured)
  context.output.result(report, describe(report))
}

async function exportTo(context: Context, _options: object, file?: string): Promise<void> {
  const { exportLog } = await import('../../../node/agent/log/log-control.ts')
  const exported = await exportLog(context.stateDir, context.agent.configured)
  const text = JSON.stringify(exported)
  if (file === undefined) return context.output.result(exported, text)
  const path = resolve(file)
  await writeFile(path, `${text}\n`).catch((error: unknown) => {
    throw new MeshError('USAGE', `${path} cannot be written (${errnoOf(error) ?? String(error)})`, { cause: error })
  })
  context.output.result({ event: 'log-export', file: path, dirty: exported.dirty }, `Wrote ${path}.`)
}

async function forget(context: Context): Promise<void> {
  const { forgetLog } = await import('../../../node/agent/log/log-control.ts')
  const result = await forgetLog(context.stateDir, context.agent.configured)
  context.output.result(
    result,
    result.existed
      ? 'The log is gone; every restore reads the whole disk until a monitor is set up again.'
      : 'No log was kept.',
  )
}

function describe(report: LogReport): string {
  const { source, state, reason, unitSize = 0, units = 0, dirty = 0, release, since, map } = report
  const rows: [string, string][] = [['disk', report.disk]]
  if (source === 'scan') rows.push(['log', 'none is kept: every restore reads the whole disk'])
  else rows.push(['log', `by ${source}, at ${report.storage}${report.inUse === true ? ', in use' : ''}`])
  if (state === 'unknown' && source !== 'scan')
    rows.push(['state', `unknown: ${reason}; the next restore reads the whole disk`])
  if (map !== undefined && since !== undefined) {
    const share = `${dirty} of ${units} units of ${formatBytes(unitSize)}`
    rows.push(['state', dirty === 0 ? 'clean' : `dirty: ${formatBytes(dirty * unitSize)}, ${share}`])
    rows.push(['against', `release ${release}, since ${formatTime(since)}`])
    rows.push(['where', map.map((count) => symbolOf(count, units / map.length)).join('')])
    rows.push(['', `${formatBytes((units * unitSize) / map.length)} each; . clean, - up to 1 %, + up to half, # more`])
  }
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')
}

function symbolOf(dirty: number, units: number): string {
  if (dirty === 0) return '.'
  if (dirty <= units / 100) return '-'
  return dirty <= units / 2 ? '+' : '#'
}
