import type { Command } from 'commander'
import type { Context } from './command.ts'
import { askPassphrase } from './passphrase.ts'

/** What {@link withKeyOptions} adds. */
export interface KeyFlags {
  readonly key: readonly string[]
  readonly passphraseFile: readonly string[]
}

/** Adds the options by which keys of the site sign that are in sealed files, and not on the master. */
export function withKeyOptions(command: Command): Command {
  return command
    .option('--key <file>', 'sealed file of a key that signs, too (repeatable)', collectFiles, [])
    .option(
      '--passphrase-file <file>',
      'file whose first line is the passphrase of a --key (repeatable, in their order; default: asked for)',
      collectFiles,
      [],
    )
}

/** Collects the values of an option that can be given several times. */
export function collectFiles(file: string, before: readonly string[]): string[] {
  return [...before, file]
}

/** The passphrase of the nth `--key`: that of the nth file, or of the last one, else it is asked for. */
export function passphraseOf({ key, passphraseFile }: KeyFlags): (index: number, holds: string) => Promise<string> {
  return (index, holds) =>
    askPassphrase(`of ${key[index]} (${holds})`, { file: passphraseFile[index] ?? passphraseFile.at(-1) })
}

/** Opens the files of `--key`, as text that is lent to whoever signs. */
export async function lentBy({ stateDir }: Pick<Context, 'stateDir'>, flags: KeyFlags): Promise<string[]> {
  const { openKeyFiles } = await import('../../node/agent/site/change-keys.ts')
  return openKeyFiles(stateDir, { keyFiles: flags.key, passphrase: passphraseOf(flags) })
}
