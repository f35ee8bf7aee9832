import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { hasTool } from '../../../tools/lab/run-tool.ts'
import { commandTree } from '../../../tools/package/command-tree.ts'
import { completions } from '../../../tools/package/completions.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const run = promisify(execFile)

/** Words on the line, the last one being completed, and some of what must and must not be offered. */
const CASES: readonly (readonly [line: string, offered: readonly string[], not: readonly string[]])[] = [
  ['mesh re', ['restore', 'remove', 'releases', 'receipts'], ['seed', '--json']],
  ['mesh log ', ['show', 'export', 'forget'], ['plan', 'seed']],
  ['mesh --json log ', ['show'], ['seed']],
  ['mesh invite --role ', ['machine', 'operator'], ['restore']],
  ['mesh roll start --wa', ['--wake', '--wave', '--warning'], ['--group']],
  ['mesh roll status --', ['--group', '--json', '--state'], ['--wake']],
  ['mesh restore --state /', ['/etc/', '/usr/'], ['/etc/passwd', '--json']],
  ['mesh config check /etc/pass', ['/etc/passwd'], ['--json']],
  ['mesh up --max-upload ', [], ['seed', '--json']],
]

describe('completions', () => {
  const dir = useTempDir()
  const shells = ['bash', 'zsh', 'fish'] as const

  beforeAll(async () => {
    const made = completions(await commandTree())
    expect(made.map(({ path }) => path.split('/')[2])).toEqual(['bash-completion', 'zsh', 'fish'])
    for (const [i, { text }] of made.entries()) await writeFile(dir(shells[i]!), text)
  })

  it.for(shells)('has no mistake that %s would tell', async (shell, context) => {
    if (!(await hasTool(shell))) return skipWithout(shell, context)
    expect((await run(shell, ['-n', dir(shell)])).stderr).toBe('')
  })

  it.each(CASES)('bash offers what fits: %s', async (line, offered, not) => {
    const script = `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mesh; printf '%s\\n' "\${COMPREPLY[@]}"`
    const { stdout } = await run('bash', ['--norc', '-c', script, 'bash', dir('bash'), ...line.split(' ')])
    // Readline puts the slash behind a directory.
    judge(
      stdout.split('\n'),
      offered.map((word) => word.replace(/(?<=.)\/$/, '')),
      not,
    )
  })

  it.for(CASES)('fish offers what fits: %s', async ([line, offered, not], context) => {
    if (!(await hasTool('fish'))) return skipWithout('fish', context)
    const { stdout } = await run('fish', ['--no-config', '-c', `source ${dir('fish')}; complete -C '${line}'`], {
      env: { ...process.env, HOME: dir(), XDG_CONFIG_HOME: dir(), XDG_DATA_HOME: dir() },
    })
    judge(
      stdout.split('\n').map((word) => word.split('\t')[0]!),
      offered,
      not,
    )
  })
})

function judge(found: readonly string[], offered: readonly string[], not: readonly string[]): void {
  expect(found).toEqual(expect.arrayContaining([...offered]))
  for (const word of not) expect(found).not.toContain(word)
}

function skipWithout(tool: string, context: TestContext): void {
  console.log(`SKIPPED: ${tool} is not installed`)
  context.skip(`${tool} is not installed`)
}
