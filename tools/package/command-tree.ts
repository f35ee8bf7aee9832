import { type Argument, Command, type Option } from 'commander'
import { withCommonOptions } from '../cli/command.ts'
import { makeProgram } from '../cli/command-line.ts'

/** What the word after an option, or an argument, is. */
export type ValueKind = 'file' | 'directory' | 'choice' | 'other'

/** An option of a command. */
export interface OptionNode {
  /** Such as `-h`. */
  readonly short?: string
  /** Such as `--state`. */
  readonly long: string
  /** What stands for its value in the help, such as `<dir>`; undefined if it takes none. */
  readonly value?: string
  readonly kind: ValueKind
  readonly choices: readonly string[]
  readonly about: string
  /** The default as the help shows it. */
  readonly fallback?: string
  /** Variable of the environment that says the same. */
  readonly variable?: string
  /** Whether every command has it. */
  readonly common: boolean
}

/** An argument of a command. */
interface ArgumentNode {
  /** As the help shows it, such as `[file]`. */
  readonly shown: string
  readonly kind: ValueKind
  readonly choices: readonly string[]
  readonly about: string
}

/** A command as its definition says it is; the root is `mesh` itself. */
export interface CommandNode {
  /** Words that call it: `mesh`, `log`, `show`. */
  readonly words: readonly string[]
  readonly about: string
  readonly options: readonly OptionNode[]
  readonly args: readonly ArgumentNode[]
  readonly commands: readonly CommandNode[]
  /** What the help says below the options, such as examples. */
  readonly after: string
}

/** All commands of the program, as they are defined for commander. */
export async function commandTree(): Promise<CommandNode> {
  return nodeOf(await makeProgram(), [])
}

function nodeOf(command: Command, above: readonly string[]): CommandNode {
  const words = [...above, command.name()]
  const help = command.createHelp()
  return {
    words,
    about: command.description(),
    options: help.visibleOptions(command).map(optionNode),
    args: command.registeredArguments.map(argumentNode),
    commands: command.commands.map((one) => nodeOf(one, words)),
    after: textAfter(command),
  }
}

const COMMON = new Set(['--help', ...withCommonOptions(new Command()).options.map(({ long }) => long)])

function optionNode(option: Option): OptionNode {
  const value = /[<[].*$/.exec(option.flags)?.[0]
  const { short, long, description, defaultValue, envVar } = option
  const shown = option.defaultValueDescription ?? (defaultValue === undefined ? undefined : String(defaultValue))
  const hasDefault = value !== undefined && shown !== undefined && shown !== ''
  return {
    ...(short === undefined ? {} : { short }),
    long: long ?? short ?? '',
    ...(value === undefined ? {} : { value }),
    kind: kindOf(value ?? '', option.argChoices),
    choices: option.argChoices ?? [],
    about: description,
    ...(hasDefault ? { fallback: shown } : {}),
    ...(envVar === undefined ? {} : { variable: envVar }),
    common: COMMON.has(long),
  }
}

function argumentNode(argument: Argument): ArgumentNode {
  const { required, variadic, argChoices, description } = argument
  const name = `${argument.name()}${variadic ? '...' : ''}`
  return {
    shown: required ? `<${name}>` : `[${name}]`,
    kind: kindOf(name, argChoices),
    choices: argChoices ?? [],
    about: description,
  }
}

/** Whether a value is a path is told by the word that stands for it. */
function kindOf(shown: string, choices: readonly string[] | undefined): ValueKind {
  if (choices !== undefined) return 'choice'
  if (/\b(dir|directory)\b/.test(shown)) return 'directory'
  return /\b(file|disk|path|place)\b/.test(shown) ? 'file' : 'other'
}

/** What `addHelpText('after', …)` added: commander prints it behind the help. */
function textAfter(command: Command): string {
  let text = ''
  const { writeOut } = command.configureOutput()
  command.configureOutput({ writeOut: (part) => (text += part) })
  command.outputHelp()
  command.configureOutput({ ...(writeOut === undefined ? {} : { writeOut }) })
  return text.slice(command.helpInformation().length).trim()
}
