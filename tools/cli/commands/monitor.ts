import { Command } from 'commander'
import type { MonitorNbdOptions } from '../../../node/agent/log/monitor-nbd.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { type HookFlags, hooksOf, withHookOptions } from '../hook-options.ts'
import { parseEraName, parseNbdAddress } from '../parse.ts'

type NbdAddress = MonitorNbdOptions['address']

interface Options extends HookFlags {
  nbd?: NbdAddress
  era?: string
  eraMetadata?: string
  qemu?: string
  qemuLive?: string
  log?: string
  readOnly: boolean
  force: boolean
}

/** `mesh monitor`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withHookOptions(withCommonOptions(new Command('monitor')))
    .description('log what is written to this machine’s disk')
    .argument('[disk]', 'the disk of this machine')
    .option(
      '--nbd <address>',
      'serve it over NBD: unix:PATH, tcp:HOST:PORT, or systemd for a socket it hands over',
      parseNbdAddress,
    )
    .option('--era <name>', 'let the kernel log what is written through /dev/mapper/NAME', parseEraName)
    .option('--era-metadata <place>', 'keep the kernel’s log on this partition or in this file')
    .option('--qemu <file>', 'let QEMU log what a virtual machine writes through this qcow2 file, made if missing')
    .option('--qemu-live <uri>', 'nbd:// address at which the running machine publishes its dirty bitmaps')
    .option('--log <place>', 'keep the log in this file, on this device, or at this nbd:// address')
    .option('--read-only', 'refuse writes', false)
    .option('--force', 'serve the disk although it is mounted or in use', false)
    .addHelpText(
      'after',
      `
From the first run on restores go by this log: write to the disk through the monitor only.
At each boot: mesh restore, then mesh monitor --era, then mount /dev/mapper/NAME. \`dmsetup remove NAME\` ends it.
A virtual machine gets the qcow2 file as its disk; start it after the restore, shut it down before the next one.

Examples:
  mesh monitor /dev/sda2 --nbd unix:/run/mesh.nbd
  mesh monitor disk.img --nbd tcp:127.0.0.1:10809
  mesh monitor /dev/sda2 --era lab
  mesh monitor disk.raw --qemu disk.qcow2`,
    )
    .action(action(run))
}

async function run(context: Context, options: Options, given?: string): Promise<void> {
  const { nbd, era, qemu } = options
  if ([nbd, era, qemu].filter((one) => one !== undefined).length !== 1)
    throw new MeshError('USAGE', 'give exactly one of --nbd, --era and --qemu: what is to log the writes')
  if (era === undefined && options.eraMetadata !== undefined)
    throw new MeshError('USAGE', '--era-metadata goes with --era')
  if (qemu === undefined && options.qemuLive !== undefined) throw new MeshError('USAGE', '--qemu-live goes with --qemu')
  const { ownDisk } = await import('../../../node/agent/machine/own-disk.ts')
  const disk = given ?? (await ownDisk(context.stateDir, context.agent.configured))
  if (nbd !== undefined) return serve(context, options, disk, nbd)
  if (era !== undefined) return useEra(context, options, disk, era)
  return useQemu(context, options, disk, qemu!)
}

async function serve(context: Context, options: Options, disk: string, address: NbdAddress): Promise<void> {
  const { monitorNbd } = await import('../../../node/agent/log/monitor-nbd.ts')
  const { assertHooksDone } = await import('../../../node/agent/machine/hooks.ts')
  const { output, agent } = context
  const stopped = await monitorNbd({
    ...agent,
    disk,
    address,
    readOnly: options.readOnly,
    force: options.force,
    ...hooksOf(options),
    ...(options.log === undefined ? {} : { storage: options.log }),
  })
  output.result(stopped, `Stopped; ${stopped.dirty} units of the log are dirty.`)
  assertHooksDone(stopped.hooks)
}

async function useQemu(context: Context, options: Options, disk: string, image: string): Promise<void> {
  if (options.readOnly || options.force) throw new MeshError('USAGE', '--read-only and --force go with --nbd')
  if (options.hooks !== undefined)
    context.agent.report({ type: 'note', text: 'hooks are not run with --qemu; run them in the virtual machine' })
  const { monitorQemu } = await import('../../../node/agent/log/monitor-qemu.ts')
  const { output, agent } = context
  const monitored = await monitorQemu({
    ...agent,
    disk,
    image,
    ...(options.qemuLive === undefined ? {} : { live: options.qemuLive }),
    ...(options.log === undefined ? {} : { storage: options.log }),
  })
  output.result(
    monitored,
    `Start the virtual machine with ${shellWords(monitored.drive)}; what it writes is logged. Never give it ${disk} itself.`,
  )
}

async function useEra(context: Context, options: Options, disk: string, name: string): Promise<void> {
  if (options.readOnly || options.force) throw new MeshError('USAGE', '--read-only and --force go with --nbd')
  const { monitorEra } = await import('../../../node/agent/log/monitor-era.ts')
  const { assertHooksDone } = await import('../../../node/agent/machine/hooks.ts')
  const { output, agent } = context
  const monitored = await monitorEra({
    ...agent,
    disk,
    name,
    ...hooksOf(options),
    ...(options.eraMetadata === undefined ? {} : { metadata: options.eraMetadata }),
    ...(options.log === undefined ? {} : { storage: options.log }),
  })
  output.result(monitored, `Mount ${monitored.device} instead of ${disk}; what is written there is logged.`)
  assertHooksDone(monitored.hooks)
}

/** `-drive FILE` as it can be pasted into a shell. */
function shellWords(option: string): string {
  const [flag, ...rest] = option.split(' ')
  const value = rest.join(' ')
  return `${flag} ${/^[\w@%+=:,./-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`}`
}
