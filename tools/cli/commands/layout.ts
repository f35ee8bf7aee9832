import { Command } from 'commander'
import {
  type DiskLayout,
  ESP_LABEL,
  ESP_TYPE,
  type LayoutPartition,
  PARTITION_TYPES,
  STATE_LABEL,
} from '../../../protocol/disk-layout.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { formatBytes, formatTable } from '../format.ts'
import { type KeyFlags, lentBy, withKeyOptions } from '../key-options.ts'

/** `mesh layout`: its commands, the parts of the agent that they call, and how the results are printed. */
export function command(): Command {
  const layout = new Command('layout').description('how the disks of bare machines are laid out')
  const set = withKeyOptions(withCommonOptions(new Command('set')))
    .description('sign the layout of a file; `mesh seed` or `mesh up` must be running here, on the master')
    .argument('<file>', 'the layout (TOML)')
    .addHelpText('after', '\nExample:\n  mesh layout set layout.toml')
    .action(action(runSet))
  const show = withCommonOptions(new Command('show'))
    .description('the layout that this machine knows of')
    .action(action(runShow))
  const propose = withCommonOptions(new Command('propose'))
    .description('print a layout file that gives other disks the partitions of this one, with their GUIDs')
    .argument('<disk>', 'the whole disk of the model, such as /dev/sda; it is only read')
    .addHelpText('after', '\nExample:\n  mesh layout propose /dev/sda >layout.toml')
    .action(action(runPropose))
  return layout.addCommand(set).addCommand(show).addCommand(propose)
}

async function runSet(context: Context, flags: KeyFlags, file: string): Promise<void> {
  const { readLayoutFile } = await import('../layout-file.ts')
  const { setLayout } = await import('../../../node/agent/run/ask-running.ts')
  const layout = await readLayoutFile(file)
  const set = await setLayout(context.stateDir, layout, await lentBy(context, flags))
  context.output.result(set, `Signed. Disks of bare machines are laid out so from now on:\n${tableOf(layout)}`)
}

async function runPropose(context: Context, _options: object, disk: string): Promise<void> {
  const { proposeLayout } = await import('../layout-proposal.ts')
  const { partitionNode } = await import('../../../node/agent/boot/lay-out-disk.ts')
  const { text, images } = await proposeLayout(disk)
  const seeds = images.map(({ number, image }) => `# mesh seed ${partitionNode(disk, number)} --image ${image}\n`)
  const how = '# Publish the partitions, each in a terminal of its own, then sign this file with `mesh layout set`:\n'
  context.output.result({ event: 'layout-proposed', text, images }, `${how}${seeds.join('')}\n${text.trimEnd()}`)
}

async function runShow(context: Context): Promise<void> {
  const { knownLayout } = await import('../../../node/agent/release/publish-layout.ts')
  const { layoutRefusal } = await import('../../../node/agent/boot/follow-layout.ts')
  const layout = await knownLayout(context.stateDir)
  const refused = await layoutRefusal(context.stateDir)
  const why = refused === undefined ? '' : `\nThe disk of this machine does not follow it: ${refused}`
  context.output.result(
    { event: 'layout', ...layout, ...(refused === undefined ? {} : { refused }) },
    `${tableOf(layout)}${why}`,
  )
}

function holdsOf({ image, system = false, grow }: LayoutPartition, isFirst: boolean): string {
  const when = isFirst ? '' : system ? ', restored when it is chosen' : ', restored at every boot'
  const what = image === undefined ? 'nothing; it is only made' : `image ${image}${when}`
  return `${what}${grow ? '; takes what the others leave' : ''}`
}

function tableOf({ esp, state, agent, partitions }: DiskLayout): string {
  const row = (label: string, size: number, type: string, holds: string): string[] => [
    label,
    formatBytes(size),
    holds,
    Object.entries(PARTITION_TYPES).find(([, guid]) => guid === type)?.[0] ?? type,
  ]
  return formatTable([
    ['partition', 'size', 'holds', 'type'],
    row(ESP_LABEL, esp, ESP_TYPE, agent === undefined ? 'nothing' : `the agent, image ${agent}`),
    row(STATE_LABEL, state, PARTITION_TYPES.linux, 'the state directory'),
    ...partitions.map((one, at) => row(one.label, one.size, one.type, holdsOf(one, at === 0))),
  ])
}
