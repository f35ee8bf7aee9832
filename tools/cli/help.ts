import { type Command, Help, type HelpConfiguration } from 'commander'
import { EXIT } from '../../protocol/errors.ts'
import { COMMON_GROUP } from './command.ts'

const standard = new Help()

/** How help is written: a command's own options first; no defaults that say only that an option was not given. */
export const HELP: HelpConfiguration = {
  groupItems: (all, visible, groupOf) => {
    const groups = standard.groupItems(all, visible, groupOf)
    const common = groups.get(COMMON_GROUP)
    if (common === undefined || groups.size === 1) return groups
    groups.delete(COMMON_GROUP)
    return groups.set(COMMON_GROUP, common)
  },
  optionDescription: (option) => standard.optionDescription(option).replace(/ \(default: (false|\[\])\)$/, ''),
}

/** What each exit code means, and what to do. */
const MEANINGS: Readonly<Record<keyof typeof EXIT, readonly [meaning: string, advice: string]>> = {
  ok: ['done; for `restore` and `verify`: every block is right', '–'],
  unexpected: ['unexpected error', 'report it; `MESH_DEBUG=1` shows where'],
  usage: ['wrong option, argument or configuration', '`mesh COMMAND --help`'],
  disk: ['the disk: missing, mounted, too small, failing, full; or a program of the system', 'the message names it'],
  state: [
    'the state directory: missing, in use, of another site, damaged; or a roll that is in the way',
    'the message names it',
  ],
  trust: ['trust: token, name, image name, metadata, clock, role', 'the message says which'],
  network: ['network: nobody reachable, port taken, a peer that answers wrongly', 'cable; are others on?'],
  unavailable: [
    'reachable machines do not hold some blocks; or a roll did not end well',
    'start more machines; run it again, it continues',
  ],
  mismatch: ['content differs from the image (`verify`); a stored hash tree is damaged', '`mesh restore`'],
  hook: ['hooks failed or were refused; all else is done, the disk is restored', 'correct the hook, run it again'],
  newer: [
    'a document was written by a newer version of mesh (FORMAT_NEWER); nothing was changed',
    'update mesh on this machine',
  ],
  doubtful: [
    'a release may be a mistake and was not published',
    'check the disk; `mesh seed --dry-run` looks again; `--force` publishes',
  ],
  removed: [
    'this machine was removed from the site',
    '`mesh join TOKEN --new-identity`, if it is to be a member again',
  ],
  missing: [
    'a roll came to its end, and machines are missing: they never came back, or were off all the time',
    'the report names them; look at these machines',
  ],
  interrupted: ['interrupted', 'run it again, it continues'],
}

/** Name of the topic `mesh help exit-codes`. */
export const EXIT_CODES_TOPIC = 'exit-codes'

/** All exit codes, as rows of a table. */
export function exitCodeRows(): string[][] {
  return Object.entries(MEANINGS).map(([name, row]) => [String(EXIT[name as keyof typeof EXIT]), ...row])
}

/** `mesh help exit-codes`. */
export function describeExitCodes(): string {
  return exitCodeRows()
    .map(([code = '', meaning = '', advice = '']) => `${code.padStart(3)}  ${meaning}\n     ${advice}`)
    .join('\n')
}

/** Says below the commands which topics there are. */
export function addTopics(program: Command): Command {
  return program.addHelpText('after', `\n\`mesh help ${EXIT_CODES_TOPIC}\` lists the exit codes.`)
}
