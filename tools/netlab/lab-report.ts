import { formatTable } from '../cli/format.ts'
import { type LabOptions, publisherOf } from './lab-options.ts'
import type { LabResult, MachineRun } from './run-lab.ts'

const MIB = 1024 ** 2

/** The result as the one line of `--json`: seconds, bytes, MiB of memory. */
export function asJson(result: LabResult): object {
  const { options, machines, source, idealSeconds, publishSeconds } = result
  const seconds = machines.map((run) => run.seconds)
  return {
    event: 'lab',
    ...optionsAsJson(options),
    seconds: {
      last: Math.max(...seconds),
      median: median(seconds),
      ideal: idealSeconds ?? null,
      each: seconds,
      ...(publishSeconds === undefined ? {} : { publish: publishSeconds }),
    },
    bytes: bytesAsJson(result),
    ...stagingAsJson(result),
    cpuSeconds: { machines: sum(machines.map((run) => run.cpuSeconds)), source: source.cpuSeconds },
    peakMib: { machine: Math.max(...machines.map((run) => run.peakMib)), source: source.peakMib },
    receipts: machines.map((run) => run.receipt),
  }
}

/** The options that mean something in this scenario. */
function optionsAsJson(options: LabOptions): object {
  const { scenario, machines, size, rate, uplink, from, content, seed, mdns, share, dirt, log } = options
  return {
    scenario,
    machines,
    size,
    rate: rate ?? null,
    ...(from === 'master' ? {} : { uplink: uplink ?? null }),
    from,
    content,
    seed,
    mdns,
    ...(scenario === 'provision' ? {} : { share }),
    ...(scenario === 'restore' ? { dirt, log } : {}),
    ...(scenario === 'update' ? { staged: options.staged } : {}),
    ...(options.killFetcher ? { killFetcher: true } : {}),
  }
}

function bytesAsJson({ machines, master, central, need }: LabResult): object {
  const received = machines.map((run) => run.traffic.received)
  return {
    outOfMaster: master?.sent ?? 0,
    overUplink: central?.sent ?? 0,
    received: sum(received),
    receivedMost: Math.max(...received),
    ideal: {
      fromSource: need.fromSource,
      fromSourceInBlocks: need.fromSourceInBlocks,
      into: sum(need.into),
      intoMost: Math.max(...need.into),
    },
  }
}

function stagingAsJson({ staging, machines }: LabResult): object {
  if (staging === undefined) return {}
  const { seconds, traffic } = staging
  return {
    staging: {
      seconds,
      outOfMaster: traffic.get('master')?.sent ?? 0,
      overUplink: traffic.get('central')?.sent ?? 0,
      received: sum(machines.map(({ machine }) => traffic.get(machine)?.received ?? 0)),
    },
  }
}

/** The result for people. */
export function asText(result: LabResult): string {
  const { options, machines, master, central, need, source, idealSeconds, publishSeconds, staging } = result
  const seconds = machines.map((run) => run.seconds)
  const received = machines.map((run) => run.traffic.received)
  const fromMaster = options.from === 'central' ? undefined : need.fromSource
  const fromCentral = options.from === 'central' ? need.fromSource : 0
  // Staged content need not be fetched any more, so there is no ideal.
  const left = <T>(ideal: T): T | undefined => (staging === undefined ? ideal : undefined)
  const rows = [
    ['', 'measured', 'ideal', 'of ideal'],
    ...stagingRows(result),
    figure('last machine, s', Math.max(...seconds), left(idealSeconds)),
    figure('median machine, s', median(seconds), left(idealSeconds)),
    ...(publishSeconds === undefined ? [] : [figure('publishing before, s', publishSeconds)]),
    ...(master === undefined ? [] : [mib('out of the master, MiB', master.sent, left(fromMaster))]),
    ...(central === undefined ? [] : [mib('over the uplink, MiB', central.sent, left(fromCentral))]),
    ...(options.from === 'central' ? [mib('of whole blocks, MiB', central!.sent, left(need.fromSourceInBlocks))] : []),
    mib('received by all machines, MiB', sum(received), left(sum(need.into))),
    mib('received by one, at most, MiB', Math.max(...received), left(Math.max(...need.into))),
    figure('CPU of all machines, s', sumOf(machines, 'cpuSeconds')),
    figure(`CPU of the ${options.from === 'central' ? 'central' : 'master'}, s`, source.cpuSeconds),
    figure('peak memory of one machine, MiB', Math.max(...machines.map((run) => run.peakMib))),
    figure('peak memory of the source, MiB', source.peakMib),
  ]
  return `${heading(options)}\n\n${formatTable(rows)}\n\nEvery disk equals the image.`
}

function stagingRows({ staging, options, machines, need, idealSeconds }: LabResult): string[][] {
  if (staging === undefined) return []
  const { traffic, seconds } = staging
  const publisher = publisherOf(options)
  const received = sum(machines.map(({ machine }) => traffic.get(machine)?.received ?? 0))
  return [
    figure('staging: last machine, s', seconds, idealSeconds),
    mib(`staging: out of the ${publisher}, MiB`, traffic.get(publisher)?.sent ?? 0, need.fromSource),
    mib('staging: received by all machines, MiB', received, sum(need.into)),
  ]
}

function heading(options: LabOptions): string {
  const { scenario, machines, size, content, share, dirt, log, from, rate, uplink, seed, staged } = options
  const links = [`LAN ${formatRate(rate)}`, ...(from === 'master' ? [] : [`uplink ${formatRate(uplink)}`])]
  const percent = `${Number((share * 100).toFixed(3))} %`
  const what = {
    provision: '',
    restore: `, ${percent} ${dirt} dirt, log ${log}`,
    update: `, ${percent} changed${staged ? ', staged' : ''}`,
  }[scenario]
  const many = machines === 1 ? '1 machine' : `${machines} machines`
  return `${scenario}: ${many}, ${size / MIB} MiB ${content}${what}, from ${from}, ${links.join(', ')}, seed ${seed}`
}

function figure(what: string, measured: number, ideal?: number): string[] {
  const ratio = ideal === undefined || ideal === 0 ? '' : (measured / ideal).toFixed(2)
  return [what, measured.toFixed(2), ideal?.toFixed(2) ?? '', ratio]
}

function mib(what: string, bytes: number, ideal?: number): string[] {
  return figure(what, bytes / MIB, ideal === undefined ? undefined : ideal / MIB)
}

function formatRate(rate: number | undefined): string {
  if (rate === undefined) return 'not limited'
  return rate >= 1e9 ? `${rate / 1e9} Gbit/s` : `${rate / 1e6} Mbit/s`
}

function sumOf(machines: readonly MachineRun[], what: 'cpuSeconds'): number {
  return sum(machines.map((run) => run[what]))
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
