import { Command } from 'commander'
import { action, type Context, withCommonOptions } from '../command.ts'
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
  return site
}

async function runShow(context: Context): Promise<void> {
  const { showSite } = await import('../../../node/agent/site/show-site.ts')
  const shown = await showSite(context.stateDir, context.agent.configured)
  context.output.result(shown, describeSite(shown))
}
