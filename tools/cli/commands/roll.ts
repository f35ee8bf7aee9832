import { Command, Option } from 'commander'
import type { NewRollOptions, RollOptions, RollResult } from '../../../node/agent/roll/roll-machines.ts'
import { EXIT } from '../../../protocol/errors.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { parseCount, parseDuration, parseHolders, parseImage, parsePlace, parseWarning, parseWindow } from '../parse.ts'
import { describePlan, describeRoll } from '../roll-text.ts'

interface GroupFlags {
  group: string
}

interface RuleFlags extends GroupFlags {
  image?: string
  release?: number
  wave: number
  holders: number
  stopAfter: number
  evenInUse: boolean
  warning: number
  window: string
  wake: boolean
  timeout: number
  patience?: number
}

interface TakeOverFlags extends GroupFlags {
  takeOver: boolean
}

/** `mesh roll`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  const roll = new Command('roll').description(
    'reset the machines of a group in waves, on the master or an operator’s machine',
  )
  roll.addCommand(withRules(of('plan', 'print who would go down together, and do nothing')).action(action(plan)))
  roll.addCommand(
    withRules(of('start', 'begin a roll and run it to its end; go on with one that was cut off on this machine'))
      .addHelpText('after', START_NOTES)
      .action(action(start)),
  )
  roll.addCommand(of('status', 'what the roll is at, or how the last one ended').action(action(status)))
  roll.addCommand(of('pause', 'take nothing down from now on; what is down is waited for').action(action(pause)))
  roll.addCommand(
    withTakeOver(of('resume', 'go on with a roll that was paused, stopped or left')).action(action(resume)),
  )
  roll.addCommand(withTakeOver(of('abort', 'end the roll; what is down is waited for')).action(action(abort)))
  return roll
}

const START_NOTES = `
Examples:
  mesh roll start --group lab-a --wave 6
  mesh roll start --group lab-a --window "22:00-05:00" --wake
  mesh roll start --group lab-a --even-in-use --warning 5m

Ctrl-C leaves the roll as it is; mesh roll resume goes on with it.`

function of(name: string, description: string): Command {
  return withCommonOptions(new Command(name))
    .description(description)
    .requiredOption('--group <name>', 'group of machines, as mesh peers lists them', parsePlace)
}

function withRules(command: Command): Command {
  return command
    .option('--wave <n>', 'machines down at a time, at most', parseCount, 8)
    .option('--holders <n>', 'running machines that every block must stay on', parseHolders, 2)
    .option('--stop-after <n>', 'failures that stop the roll', parseCount, 3)
    .option('--even-in-use', 'also reset machines that somebody uses', false)
    .addOption(
      new Option('--warning <time>', 'how long whoever uses a machine is warned before, at most 60m')
        .argParser(parseWarning)
        .default(300_000, '5m'),
    )
    .addOption(
      new Option(
        '--window <times>',
        'when machines may go down: 22:00-05:00, or "Mo-Fr 22:00-05:00; Sa-Su 00:00-24:00"',
      )
        .argParser(parseWindow)
        .default('', 'always'),
    )
    .option('--wake', 'power on machines that are off (Wake-on-LAN)', false)
    .addOption(time('--timeout <time>', 'for one machine, from the reset to its receipt').default(1_200_000, '20m'))
    .addOption(
      time('--patience <time>', 'for machines in use, off or needed, when nothing else is left (default: the timeout)'),
    )
    .option('--image <name>', 'image of the machines (default: the one they have)', parseImage)
    .option('--release <n>', 'release they must have in the end (default: the newest)', parseCount)
}

function time(flags: string, what: string): Option {
  return new Option(flags, what).argParser(parseDuration)
}

function withTakeOver(command: Command): Command {
  return command.option('--take-over', 'also if another operator runs it, who is then refused by the machines', false)
}

async function plan(context: Context, flags: RuleFlags): Promise<void> {
  const { planRoll } = await import('../../../node/agent/roll/roll-machines.ts')
  const planned = await planRoll(newRollOptions(context, flags))
  context.output.result(planned, describePlan(planned))
}

async function start(context: Context, flags: RuleFlags): Promise<void> {
  const { startRoll } = await import('../../../node/agent/roll/roll-machines.ts')
  finish(context, await startRoll(newRollOptions(context, flags)))
}

async function status(context: Context, flags: GroupFlags): Promise<void> {
  const { rollStatus } = await import('../../../node/agent/roll/roll-machines.ts')
  const result = await rollStatus(rollOptions(context, flags))
  context.output.result(result, describeRoll(result))
}

async function pause(context: Context, flags: GroupFlags): Promise<void> {
  const { pauseRoll } = await import('../../../node/agent/roll/roll-machines.ts')
  const result = await pauseRoll(rollOptions(context, flags))
  context.output.result(result, describeRoll(result))
}

async function resume(context: Context, flags: TakeOverFlags): Promise<void> {
  const { takeUpRoll } = await import('../../../node/agent/roll/roll-machines.ts')
  finish(context, await takeUpRoll('resume', { ...rollOptions(context, flags), takeOver: flags.takeOver }))
}

async function abort(context: Context, flags: TakeOverFlags): Promise<void> {
  const { takeUpRoll } = await import('../../../node/agent/roll/roll-machines.ts')
  finish(context, await takeUpRoll('abort', { ...rollOptions(context, flags), takeOver: flags.takeOver }))
}

/** A roll that this process ran has succeeded only if it came to its end, no machine failed, and none is missing. */
function finish(context: Context, result: RollResult): void {
  context.output.result(result, describeRoll(result))
  if (result.heard === true) return
  const { state } = result.roll
  if (state !== 'done' && state !== 'aborted' && context.signal.aborted) process.exitCode = EXIT.interrupted
  else if (state !== 'done') process.exitCode = EXIT.unavailable
  else if ((result.report?.missing ?? []).length > 0) process.exitCode = EXIT.missing
  else if ((result.report?.failed ?? 0) > 0) process.exitCode = EXIT.unavailable
}

function rollOptions({ agent }: Context, { group }: GroupFlags): RollOptions {
  return { ...agent, group }
}

function newRollOptions(context: Context, flags: RuleFlags): NewRollOptions {
  const { image, release, wave, holders, stopAfter, evenInUse, warning, window, wake, timeout } = flags
  return {
    ...rollOptions(context, flags),
    ...(image === undefined ? {} : { image }),
    ...(release === undefined ? {} : { release }),
    rules: {
      wave,
      holders,
      stopAfter,
      evenInUse,
      warningSeconds: seconds(warning),
      window,
      wake,
      timeoutSeconds: seconds(timeout),
      patienceSeconds: seconds(flags.patience ?? timeout),
    },
  }
}

function seconds(ms: number): number {
  return Math.round(ms / 1000)
}
