import { Command } from 'commander'
import { formatTime } from '../../../protocol/local-time.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { askPassphrase } from '../passphrase.ts'
import { describeSite } from '../site-text.ts'

/** `mesh site`: its commands, the parts of the agent that they call, and how the results are printed. */
export function command(): Command {
  const site = new Command('site').description('the keys of the site: who signs what, and until when')
  site.addCommand(
    withCommonOptions(new Command('show'))
      .description('the keys of the site, what each signs until when, and what is to be done')
      .addHelpText('after', '\nExample:\n  mesh site show')
      .action(action(runShow)),
  )
  site.addCommand(
    withPassphrase(withCommonOptions(new Command('backup')))
      .description('write all that makes this machine the master into one file, sealed with a passphrase')
      .argument('<file>', 'the file, which must not be there yet, such as one on a stick')
      .option('--dry-run', 'only say what the file would hold', false)
      .addHelpText('after', '\nExample:\n  mesh site backup /media/stick/school.mesh-backup')
      .action(action(runBackup)),
  )
  site.addCommand(
    withPassphrase(withCommonOptions(new Command('restore')))
      .description('make this computer the master again, from a file of mesh site backup')
      .argument('<file>', 'the file')
      .option('--dry-run', 'only say what the file holds', false)
      .addHelpText('after', '\nExample:\n  mesh site restore /media/stick/school.mesh-backup')
      .action(action(runRestore)),
  )
  return site
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
