import type { CommandNode, OptionNode, ValueKind } from './command-tree.ts'

/** Files by which shells complete the words of `mesh`; paths are those of Debian. */
interface Completion {
  readonly path: string
  readonly text: string
}

/** Completions for bash, zsh and fish. */
export function completions(tree: CommandNode): Completion[] {
  return [
    { path: 'usr/share/bash-completion/completions/mesh', text: bash(tree) },
    { path: 'usr/share/zsh/vendor-completions/_mesh', text: zsh(tree) },
    { path: 'usr/share/fish/vendor_completions.d/mesh.fish', text: fish(tree) },
  ]
}

const all = (node: CommandNode): CommandNode[] => [node, ...node.commands.flatMap(all)]
const nameOf = ({ words }: CommandNode): string => words.at(-1) ?? ''
const plain = (text: string): string => text.replaceAll('`', '')
const single = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/**
 * The first words of the line that are names of commands say which command it is. An option with a value takes the word
 * behind it, which is a path, one of some words, or anything.
 */
function bash(tree: CommandNode): string {
  const nodes = all(tree)
  const words = nodes.map(
    ({ words, commands, options }) =>
      `  ${single(words.join(' '))}) words=${single([...commands.map(nameOf), ...options.map(({ long }) => long)].join(' '))};;`,
  )
  const below = nodes.flatMap(({ words, commands }) =>
    commands.map((one) => single(`${words.join(' ')} ${nameOf(one)}`)),
  )
  const args = nodes.flatMap(({ words, args: [first] }) =>
    first === undefined ? [] : [`  ${single(words.join(' '))}) ${bashValues(first.kind, first.choices)};;`],
  )
  const values = nodes.flatMap(({ words, options }) =>
    options
      .filter(({ value }) => value !== undefined)
      .map((one) => `  ${single(`${words.join(' ')} ${one.long}`)}) ${bashValues(one.kind, one.choices)}; return;;`),
  )
  return `# bash completion for mesh; made from the definitions of its commands.
_mesh() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} command=mesh word words=
  COMPREPLY=()
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$command $word" in
    ${below.join('|')}) command="$command $word";;
    esac
  done
  case "$command $previous" in
${values.join('\n')}
  esac
  case "$command" in
${words.join('\n')}
  esac
  if [[ $current != -* ]]; then
    case "$command" in
${args.join('\n')}
    esac
  fi
  COMPREPLY+=($(compgen -W "$words" -- "$current"))
}
complete -F _mesh mesh
`
}

function bashValues(kind: ValueKind, choices: readonly string[]): string {
  const files = (flag: string): string =>
    `compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -${flag} -- "$current")`
  if (kind === 'file') return files('f')
  if (kind === 'directory') return files('d')
  return kind === 'choice' ? `COMPREPLY=($(compgen -W ${single(choices.join(' '))} -- "$current"))` : ':'
}

function zsh(tree: CommandNode): string {
  const functions = all(tree).map((node) => {
    const name = `_${node.words.join('_')}`
    const specs = node.options.map(zshOption)
    if (node.commands.length === 0) {
      const args = node.args.map(({ shown, kind, choices }) => single(`:${zshText(shown)}:${zshValues(kind, choices)}`))
      return `${name}() {\n  _arguments -s ${[...specs, ...args].join(' \\\n    ')}\n}`
    }
    const names = node.commands.map((one) => `    ${single(`${nameOf(one)}:${plain(one.about)}`)}`)
    const cases = node.commands.map((one) => `      ${nameOf(one)}) _${one.words.join('_')};;`)
    return `${name}() {
  local line state
  _arguments -s -C ${[...specs, "'1:command:->command'", "'*::argument:->argument'"].join(' \\\n    ')}
  local -a commands=(
${names.join('\n')}
  )
  case $state in
    command) _describe command commands;;
    argument)
      case $line[1] in
${cases.join('\n')}
      esac;;
  esac
}`
  })
  return `#compdef mesh\n# zsh completion for mesh; made from the definitions of its commands.\n\n${functions.join('\n\n')}\n\n_mesh "$@"\n`
}

function zshOption({ long, short, value, about, kind, choices }: OptionNode): string {
  const end = `[${zshText(plain(about))}]${value === undefined ? '' : `:${zshText(value)}:${zshValues(kind, choices)}`}`
  if (short === undefined) return single(`${long}${end}`)
  return `${single(`(${short} ${long})`)}{${short},${long}}${single(end)}`
}

function zshText(text: string): string {
  return text.replaceAll(/[\\[\]:]/g, '\\$&')
}

function zshValues(kind: ValueKind, choices: readonly string[]): string {
  if (kind === 'file') return '_files'
  if (kind === 'directory') return '_files -/'
  return kind === 'choice' ? `(${choices.join(' ')})` : ' '
}

function fish(tree: CommandNode): string {
  const lines = all(tree).flatMap((node) => {
    const when = `__mesh_is ${node.words.slice(1).join(' ')}`.trim()
    const complete = (rest: string): string => `complete -c mesh -n ${fishText(when)} ${rest}`
    return [
      ...node.commands.map((one) => complete(`-f -a ${nameOf(one)} -d ${fishText(plain(one.about))}`)),
      ...node.options.map((option) => complete(fishOption(option))),
      ...(node.args.some(({ kind }) => kind === 'file') ? [complete('-F')] : []),
    ]
  })
  const names = all(tree).filter(({ commands }) => commands.length === 0)
  const groups = tree.commands.filter(({ commands }) => commands.length > 0).map(nameOf)
  return `# fish completion for mesh; made from the definitions of its commands.

# Whether the words so far call exactly this command.
function __mesh_is
    set -l found
    for word in (commandline -opc)[2..]
        if test (count $found) -eq 0; and contains -- $word ${[...new Set(tree.commands.map(nameOf))].join(' ')}
            set -a found $word
        else if test (count $found) -eq 1; and contains -- $found[1] ${groups.join(' ')}; and contains -- "$found[1] $word" ${names
          .filter(({ words }) => words.length === 3)
          .map(({ words }) => fishText(words.slice(1).join(' ')))
          .join(' ')}
            set -a found $word
        end
    end
    test "$found" = "$argv"
end

complete -c mesh -f
${lines.join('\n')}
`
}

function fishOption({ long, short, value, about, kind, choices }: OptionNode): string {
  const takes = { file: ' -r -F', directory: " -r -f -a '(__fish_complete_directories)'", other: ' -x', choice: '' }
  const given = kind === 'choice' ? ` -x -a ${fishText(choices.join(' '))}` : takes[kind]
  const names = `-l ${long.slice(2)}${short === undefined ? '' : ` -s ${short.slice(1)}`}`
  return `${names}${value === undefined ? '' : given} -d ${fishText(plain(about))}`
}

function fishText(text: string): string {
  return `'${text.replaceAll(/[\\']/g, '\\$&')}'`
}
