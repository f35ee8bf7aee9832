import { Command } from 'commander'
import type { Machines } from '../../../node/agent/run/ask-running.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { formatBytes, formatTable } from '../format.ts'

/** `mesh machines`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('machines'))
    .description(
      'list the machines that ask to be enrolled; `mesh seed` or `mesh up` must be running here, on the master',
    )
    .addHelpText('after', '\nExample:\n  mesh machines')
    .action(action(run))
}

async function run(context: Context): Promise<void> {
  const { machines } = await import('../../../node/agent/run/ask-running.ts')
  const result = await machines(context.stateDir)
  context.output.result(result, [`Site ${result.site}, id ${result.siteId}`, describe(result)].join('\n'))
}

function describe({ machines, approvals }: Machines): string {
  const heading = [
    'name',
    'code',
    'state',
    'network cards',
    'model',
    'serial',
    'memory',
    'disks',
    'since',
    'asked last',
    'from',
  ]
  const rows = machines.map((one) => [
    one.name,
    one.code,
    one.state,
    one.mac.join(' '),
    one.model || 'unknown',
    one.serial || 'unknown',
    one.memory === 0 ? 'unknown' : formatBytes(one.memory),
    one.disks
      .map(({ name, size, model }) => `${name} ${formatBytes(size)}${model === '' ? '' : ` ${model}`}`)
      .join(', '),
    formatTime(one.since),
    formatTime(one.asked),
    one.address,
  ])
  const waiting = machines.length === 0 ? 'No machine waits to be enrolled.' : formatTable([heading, ...rows])
  const standing = approvals.map(
    ({ for: whom, name, group, wipe, expires }) =>
      `approved until ${formatTime(expires)}: ${whom === 'all' ? 'whoever asks' : `${whom} as ${name}`}${group === undefined ? '' : `, group ${group}`}${wipe ? ', its disk may be wiped' : ''}`,
  )
  return [waiting, ...machines.flatMap(notesOn), ...standing].join('\n')
}

/** What somebody should know before approving a machine. */
function notesOn(one: Machines['machines'][number]): string[] {
  const who = `${one.name} (${one.code})`
  return [
    ...(one.replaces === undefined
      ? []
      : [`${who} was ${one.replaces} before: if it is approved, the old key of ${one.replaces} goes out`]),
    ...(one.disk === ''
      ? []
      : [`${who} wants ${one.disk} restored, which ${one.holds === '' ? 'is blank' : `holds ${one.holds}`}`]),
    ...(one.problem === undefined ? [] : [`${who} cannot be let in like this: ${one.problem}`]),
  ]
}
