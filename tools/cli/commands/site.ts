import { Command, InvalidArgumentError } from 'commander'
import { MeshError } from '../../../protocol/errors.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { collectFiles, type KeyFlags, passphraseOf, withKeyOptions } from '../key-options.ts'
import { parseCount } from '../parse.ts'
import { askPassphrase } from '../passphrase.ts'
import { describeRotated, describeSite } from '../site-text.ts'

/** `mesh site`: its commands, the parts of the agent that they call, and how the results are printed. */
export function command(): Command {
  const site = new Command('site').description('the keys of the site: who signs what, and until when')
  for (const one of [
    makeShow,
    makeBackup,
    makeRestore,
    makeRotate,
    makeRenew,
    makeDelegate,
    makeTakeover,
    makeExport,
    makeImport,
  ])
    site.addCommand(one())
  return site
}

function makeShow(): Command {
  return withCommonOptions(new Command('show'))
    .description('the keys of the site, what each signs until when, and what is to be done')
    .addHelpText('after', '\nExample:\n  mesh site show')
    .action(action(runShow))
}

function makeBackup(): Command {
  return withPassphrase(withCommonOptions(new Command('backup')))
    .description('write all that makes this machine the master into one file, sealed with a passphrase')
    .argument('<file>', 'the file, which must not be there yet, such as one on a stick')
    .option('--dry-run', 'only say what the file would hold', false)
    .addHelpText('after', '\nExample:\n  mesh site backup /media/stick/school.mesh-backup')
    .action(action(runBackup))
}

function makeRestore(): Command {
  return withPassphrase(withCommonOptions(new Command('restore')))
    .description('make this computer the master again, from a file of mesh site backup')
    .argument('<file>', 'the file')
    .option('--dry-run', 'only say what the file holds', false)
    .addHelpText('after', '\nExample:\n  mesh site restore /media/stick/school.mesh-backup')
    .action(action(runRestore))
}

function makeRotate(): Command {
  return withKeys(withCommonOptions(new Command('rotate')))
    .description('give a role new keys: one that stays on this master, or one in each file')
    .argument('<role>', ROLES.join(', '), parseRole)
    .argument('[files...]', 'sealed files that are made, one for each key of root or targets, such as on sticks')
    .option('--threshold <n>', 'how many of the new keys must sign', parseCount, 1)
    .option(
      '--new-passphrase-file <file>',
      'file whose first line is the passphrase of a new file (repeatable; default: asked for)',
      collectFiles,
      [],
    )
    .addHelpText(
      'after',
      '\nExamples:\n  mesh site rotate root /media/a/root.key /media/b/root.key /media/c/root.key --threshold 2\n  mesh site rotate timestamp --key /media/a/root.key --key /media/b/root.key',
    )
    .action(action(runRotate))
}

function makeRenew(): Command {
  return withKeys(withCommonOptions(new Command('renew')))
    .description('sign a role anew, valid for its whole life from now on')
    .argument('<role>', ROLES.join(', '), parseRole)
    .addHelpText('after', '\nExample:\n  mesh site renew root --key /media/stick/root.key')
    .action(action(runRenew))
}

function makeDelegate(): Command {
  return withKeys(withCommonOptions(new Command('delegate')))
    .description('let the key in a file sign the images of a prefix, and no others')
    .argument('<prefix>', 'beginning of image names: school-a for all that begin with school-a/', parsePrefix)
    .argument('[files...]', 'sealed files that are made, one for each key')
    .option('--threshold <n>', 'how many of the keys must sign', parseCount, 1)
    .option(
      '--new-passphrase-file <file>',
      'file whose first line is the passphrase of a new file (repeatable; default: asked for)',
      collectFiles,
      [],
    )
    .option('--end', 'take the images back: what was published stays', false)
    .addHelpText('after', '\nExample:\n  mesh site delegate school-a /media/a/school-a.key')
    .action(action(runDelegate))
}

function makeTakeover(): Command {
  return withKeys(withCommonOptions(new Command('takeover')))
    .description('make this machine the master of its site, in place of one that was lost or stolen')
    .addHelpText('after', '\nExample:\n  mesh site takeover --key /media/a/root.key --key /media/b/root.key')
    .action(action(runTakeOver))
}

function makeExport(): Command {
  return withCommonOptions(new Command('export'))
    .description('write the signed metadata into a folder, such as one on a stick')
    .argument('<dir>', 'the folder; an older export in it is brought up to date')
    .option('--dry-run', 'only say what would be written', false)
    .addHelpText('after', '\nExample:\n  mesh site export /media/stick/school')
    .action(action(runExport))
}

function makeImport(): Command {
  return withCommonOptions(new Command('import'))
    .description('take the signed metadata of a folder, checked as those of another machine')
    .argument('<dir>', 'the folder')
    .option('--dry-run', 'check them, and keep nothing', false)
    .addHelpText('after', '\nExample:\n  mesh site import /media/stick/school')
    .action(action(runImport))
}

const ROLES = ['root', 'targets', 'snapshot', 'timestamp', 'members'] as const

type RoleName = (typeof ROLES)[number] | `images-${string}`

function parseRole(text: string): RoleName {
  const role = ROLES.find((one) => one === text)
  if (role !== undefined) return role
  if (/^images-[a-z0-9][a-z0-9-]{0,39}$/.test(text)) return text as RoleName
  throw new InvalidArgumentError(`Give one of ${ROLES.join(', ')}, or images-PREFIX.`)
}

function parsePrefix(text: string): string {
  const prefix = text.replace(/\/\*?$/, '')
  if (/^[a-z0-9][a-z0-9-]{0,39}$/.test(prefix)) return prefix
  throw new InvalidArgumentError('Give small letters, digits and dashes, at most 40, such as school-a.')
}

function withKeys(command: Command): Command {
  return withKeyOptions(command).option('--dry-run', 'sign and check everything, and keep nothing of it', false)
}

interface SealedFlags {
  passphraseFile?: string
  dryRun: boolean
}

function withPassphrase(command: Command): Command {
  return command.option(
    '--passphrase-file <file>',
    'file whose first line is the passphrase (default: it is asked for)',
  )
}

async function runShow(context: Context): Promise<void> {
  const { showSite } = await import('../../../node/agent/site/show-site.ts')
  const shown = await showSite(context.stateDir, context.agent.configured)
  context.output.result(shown, describeSite(shown))
}

async function runBackup(context: Context, flags: SealedFlags, file: string): Promise<void> {
  const { backUpMaster } = await import('../../../node/agent/site/backup.ts')
  const passphrase = () => askPassphrase('for the backup', { file: flags.passphraseFile, isNew: true })
  const made = await backUpMaster(context.stateDir, { file, dryRun: flags.dryRun, passphrase })
  const { site, members, releases } = made
  const holds = `the master of site ${site}, with ${members} members and ${releases.map(({ image, release }) => `${image} release ${release}`).join(', ') || 'no release'}`
  const text = flags.dryRun
    ? `${file} would hold ${holds}.`
    : `${file} holds ${holds}, and was read back.\nWhoever has the file and the passphrase is the master. Make a new one after each release and each new machine.`
  context.output.result(made, text)
}

async function runRestore(context: Context, flags: SealedFlags, file: string): Promise<void> {
  const { restoreMaster } = await import('../../../node/agent/site/backup.ts')
  const passphrase = () => askPassphrase(`of ${file}`, { file: flags.passphraseFile })
  const { command } = context.agent
  const restored = await restoreMaster(context.stateDir, { file, dryRun: flags.dryRun, passphrase, command })
  const { name, site, made } = restored
  const text = flags.dryRun
    ? `${file} holds the master ${name} of site ${site}, as it was at ${formatTime(made)}.`
    : `This computer is the master ${name} of site ${site}, as it was at ${formatTime(made)}.\nNext: \`mesh up\`, with some machines of the site running: they tell what was signed since. Never start the old master again.`
  context.output.result(restored, text)
}

async function runRotate(
  context: Context,
  flags: KeyFlags & { dryRun: boolean; threshold: number; newPassphraseFile: string[] },
  role: RoleName,
  files: string[],
): Promise<void> {
  const { rotateKeys } = await import('../../../node/agent/site/change-keys.ts')
  const { threshold, newPassphraseFile, dryRun } = flags
  const changed = await rotateKeys(context.stateDir, {
    ...signingWith(context, flags),
    ...{ role, files, threshold, dryRun },
    newPassphrase: (at) =>
      askPassphrase(`for ${files[at]}`, { file: newPassphraseFile[at] ?? newPassphraseFile.at(-1), isNew: true }),
  })
  context.output.result(changed, describeRotated(changed, files))
}

interface DelegateFlags extends KeyFlags {
  dryRun: boolean
  threshold: number
  newPassphraseFile: string[]
  end: boolean
}

async function runDelegate(context: Context, flags: DelegateFlags, prefix: string, files: string[]): Promise<void> {
  if (!flags.end) return runRotate(context, flags, `images-${prefix}`, files)
  if (files.length > 0) throw new MeshError('USAGE', '--end takes no files')
  const { endDelegation } = await import('../../../node/agent/site/change-keys.ts')
  const role = `images-${prefix}` as const
  const changed = await endDelegation(context.stateDir, { ...signingWith(context, flags), role, dryRun: flags.dryRun })
  context.output.result(changed, describeRotated(changed, files))
}

async function runRenew(context: Context, flags: KeyFlags & { dryRun: boolean }, role: RoleName): Promise<void> {
  const { renewRole } = await import('../../../node/agent/site/change-keys.ts')
  const changed = await renewRole(context.stateDir, { ...signingWith(context, flags), role, dryRun: flags.dryRun })
  const what = changed.dryRun ? 'could be signed anew; nothing was kept' : 'was signed anew'
  context.output.result(changed, `What the ${role} role says ${what}. \`mesh site show\` shows until when it is valid.`)
}

async function runTakeOver(context: Context, flags: KeyFlags & { dryRun: boolean }): Promise<void> {
  const { takeSiteOver } = await import('../../../node/agent/site/take-over.ts')
  const taken = await takeSiteOver(context.stateDir, { ...signingWith(context, flags), dryRun: flags.dryRun })
  const { name, site, root, removed, newTargets } = taken
  const before = removed.length === 0 ? 'There was no other master.' : `Removed: ${removed.join(', ')}.`
  const releases = newTargets
    ? 'Releases are signed by a new key, which is here.'
    : 'Releases are signed by the keys that were given.'
  const text = flags.dryRun
    ? `${name} could become the master of site ${site}; everything was signed and checked, and nothing was kept.`
    : `${name} is the master of site ${site}, as root version ${root} says. ${before}\n${releases}\nNext: \`mesh up\`, with the other machines running.`
  context.output.result(taken, text)
}

async function runExport(context: Context, { dryRun }: { dryRun: boolean }, dir: string): Promise<void> {
  const { exportMetadata } = await import('../../../node/agent/site/carry-metadata.ts')
  const exported = await exportMetadata(context.stateDir, dir, dryRun)
  const { directory, site, versions, files } = exported
  const text = `${directory} ${dryRun ? 'would hold' : 'holds'} the signed metadata of site ${site}: root ${versions.root}, timestamp ${versions.timestamp}, ${files} files.`
  context.output.result(exported, text)
}

async function runImport(context: Context, { dryRun }: { dryRun: boolean }, dir: string): Promise<void> {
  const { importMetadata } = await import('../../../node/agent/site/carry-metadata.ts')
  const imported = await importMetadata(context.stateDir, dir, { dryRun, command: context.agent.command })
  const { changed, versions, members, releases } = imported
  const newest = releases.map(({ image, release }) => `${image} release ${release}`).join(', ') || 'no release'
  const state = `root ${versions.root}, timestamp ${versions.timestamp}, ${members} members, ${newest}`
  const what = dryRun ? 'This machine would trust' : 'This machine trusts'
  context.output.result(
    imported,
    changed ? `${what} now: ${state}.` : `Nothing in ${dir} is newer. This machine trusts: ${state}.`,
  )
}

function signingWith(context: Context, flags: KeyFlags) {
  return { keyFiles: flags.key, passphrase: passphraseOf(flags), command: context.agent.command }
}
