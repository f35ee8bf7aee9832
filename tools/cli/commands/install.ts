import { realpath, stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { Command } from 'commander'
import { SERVING_NICE } from '../../../node/agent/offer/limits.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { BUNDLE } from '../bundle.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { configOf } from '../config/apply-config.ts'
import type { UnitChange } from '../install/install-units.ts'
import type { UnitFacts, UnitMonitor } from '../install/mesh-units.ts'
import type { UnitFile } from '../install/unit-text.ts'
import { parseEraName, parseUnitNbd } from '../parse.ts'

interface Options {
  root: string
  dryRun: boolean
  remove: boolean
  operator: boolean
  nbd?: string
  era?: string
  program?: string
}

/** `mesh install`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('install'))
    .description('write the systemd units of this machine, from its configuration file')
    .option('--dry-run', 'print the units, change nothing', false)
    .option('--root <dir>', 'system for which they are written', '/')
    .option('--remove', 'take away what was written', false)
    .option('--nbd <address>', 'run `mesh monitor --nbd` with this address, unix:PATH or tcp:HOST:PORT', parseUnitNbd)
    .option('--era <name>', 'run `mesh monitor --era` with this name (default: as it was set up)', parseEraName)
    .option('--operator', 'this machine starts a roll of its group when the window of the file begins', false)
    .option('--program <path>', 'what runs as mesh (default: this program)')
    .addHelpText('after', '\nExamples:\n  mesh install --dry-run\n  mesh install --era lab\n  mesh install --remove')
    .action(action(run))
}

const VERBS = {
  done: { written: 'wrote', unchanged: 'unchanged', removed: 'removed' },
  dry: { written: 'would write', unchanged: 'unchanged', removed: 'would remove' },
} as const

async function run(context: Context, options: Options): Promise<void> {
  const { installUnits } = await import('../install/install-units.ts')
  const { meshUnits } = await import('../install/mesh-units.ts')
  const { output } = context
  const { dryRun, remove } = options
  const root = resolve(options.root)
  if (!(await stat(root).catch(() => undefined))?.isDirectory())
    throw new MeshError('USAGE', `--root ${root} is no directory`)
  const units = remove ? [] : meshUnits(await factsOf(context, options))
  const changes = await installUnits(root, units, { dryRun })
  const next = nextCommands(root, units, changes)
  const shown = dryRun ? units.map(({ name, text }) => `# ${join(root, 'etc/systemd/system', name)}\n${text}`) : []
  const done = changes.map(({ path, change }) => `${VERBS[dryRun ? 'dry' : 'done'][change]} ${path}`)
  const lines = [...shown, ...(done.length === 0 ? ['nothing to do'] : done)]
  if (next.length > 0) lines.push('next:', ...next.map((line) => `  ${line}`))
  output.result({ event: 'installed', dryRun, changes, next, ...(dryRun ? { units } : {}) }, lines.join('\n'))
}

async function factsOf({ agent, command, config }: Context, options: Options): Promise<UnitFacts> {
  const { rememberedMachine } = await import('../../../node/agent/machine/remembered-machine.ts')
  const state = resolve(agent.stateDir)
  const remembered = await rememberedMachine(state)
  // The disk of the master is the model. Changes on it are published, and must not be undone at the next boot.
  const disk = remembered?.role === 'master' ? undefined : (config.disk ?? remembered?.disk)
  const file = configOf(command)?.path
  const monitor = await monitorOf(state, options)
  if (disk === undefined && monitor !== undefined)
    throw new MeshError(
      'USAGE',
      'no disk is known that is restored at boot (the master’s never is): set disk in the configuration file, or join first',
    )
  return {
    program: await programOf(options.program),
    state,
    stateInFile: config.state !== undefined && resolve(config.state) === state,
    ...(file === undefined ? {} : { config: resolve(file) }),
    ...(disk === undefined ? {} : { disk: resolve(disk) }),
    ...(monitor === undefined ? {} : { monitor }),
    hooks: config['hooks.directory'] !== undefined,
    nice: config['serving.nice'] ?? remembered?.serving?.nice ?? SERVING_NICE,
    ...(options.operator ? { roll: rollOf(config) } : {}),
  }
}

/**
 * The monitor that was given, or else the one that keeps the log now. The address of an NBD server is not remembered.
 */
async function monitorOf(state: string, { nbd, era }: Options): Promise<UnitMonitor | undefined> {
  if (nbd !== undefined && era !== undefined) throw new MeshError('USAGE', 'give one of --nbd and --era')
  if (nbd !== undefined) return { nbd }
  if (era !== undefined) return { era }
  const { readLogConfig } = await import('../../../node/agent/log/log-config.ts')
  const log = await readLogConfig(state)
  if (log?.source === 'dm-era') return { era: log.name }
  if (log?.source === 'nbd')
    throw new MeshError(
      'USAGE',
      'the write log of this machine is kept by `mesh monitor --nbd`: give its address by --nbd',
    )
  return undefined
}

/** The command line of this process, with the same Node: units have no PATH to find it by. */
async function programOf(given: string | undefined): Promise<string[]> {
  if (given !== undefined) return [resolve(given)]
  if (BUNDLE?.program !== undefined) return [BUNDLE.program]
  const script = process.argv[1]
  if (script === undefined || !/^mesh/.test(basename(await realpath(script))))
    throw new MeshError('USAGE', 'give the program that the units are to run by --program')
  return [process.execPath, ...process.execArgv, await realpath(script)]
}

function rollOf(config: Context['config']): NonNullable<UnitFacts['roll']> {
  const { group, 'roll.window': window } = config
  if (group === undefined || window === undefined)
    throw new MeshError('USAGE', '--operator needs the keys group and roll.window of the configuration file')
  return { group, window }
}

function nextCommands(root: string, units: readonly UnitFile[], changes: readonly UnitChange[]): string[] {
  const reload = root === '/' && changes.some(({ change }) => change !== 'unchanged') ? ['systemctl daemon-reload'] : []
  const enabled = units.filter(({ text }) => text.includes('\n[Install]\n')).map(({ name }) => name)
  const where = root === '/' ? '' : ` --root=${root}`
  return [...reload, ...(enabled.length === 0 ? [] : [`systemctl${where} enable ${enabled.join(' ')}`])]
}
