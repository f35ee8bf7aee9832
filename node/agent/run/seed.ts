import type { Published } from '../machine/events.ts'
import type { AgentOptions } from '../machine/options.ts'
import { listenToRemember, rememberServing } from '../machine/settings.ts'
import { askClocks } from '../mesh/ask-clocks.ts'
import { type NewSite, openSite } from '../release/open-site.ts'
import { checkRequest, publishRelease } from '../release/publish-release.ts'
import type { ReleaseRequest } from '../release/release-plan.ts'
import { serve } from './serve.ts'

/** Options of `mesh seed`. */
interface SeedOptions extends AgentOptions, ReleaseRequest, Pick<NewSite, 'site' | 'name'> {
  readonly listen?: readonly string[]
  /** Publish and return, instead of serving on. */
  readonly once: boolean
}

/**
 * `mesh seed`: publishes the content of a disk as the next release (creating the site at the first time), then serves it
 * until the signal aborts. Unchanged content makes no release.
 * Errors: STATE_NOT_MASTER, those of {@link checkRequest}, {@link publishRelease} and {@link serve}.
 */
export async function seed(options: SeedOptions): Promise<Published> {
  const { stateDir, site, name, report, signal } = options
  // What was asked for is looked at before a site is made for it.
  const size = await checkRequest(options)
  const listen = listenToRemember(options)
  const machine = await openSite(stateDir, { site, name, listen: listen ?? [] }, report)
  try {
    const clocks = await askClocks(machine, options)
    const context = { size, listen, clocks, report, signal }
    const { published, manifest, path } = await publishRelease(machine, options, context)
    report({ type: 'published', published })
    await rememberServing(machine, options)
    if (!options.once) await serve(machine, { manifest, path, whole: true }, { ...options, command: 'seed' })
    return published
  } finally {
    await machine.close()
  }
}
