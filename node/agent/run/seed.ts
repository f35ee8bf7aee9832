import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import type { Published } from '../machine/events.ts'
import type { AgentOptions } from '../machine/options.ts'
import { listenToRemember, rememberServing } from '../machine/settings.ts'
import { askMembers, hearMembers, type Said } from '../mesh/ask-members.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import type { Offer } from '../offer/open-source.ts'
import { type NewSite, openSite } from '../release/open-site.ts'
import { checkRequest, type PublishedRelease, publishRelease } from '../release/publish-release.ts'
import type { ReleaseRequest } from '../release/release-plan.ts'
import { publishThere } from './publish-here.ts'
import { serve } from './serve.ts'

/** Options of `mesh seed`. */
interface SeedOptions extends AgentOptions, ReleaseRequest, Pick<NewSite, 'site' | 'name'> {
  readonly listen?: readonly string[]
  /** Publish and return, instead of serving on. */
  readonly once: boolean
}

/**
 * `mesh seed`: publishes the content of a disk as the next release (creating the site at the first time), then serves it
 * until the signal aborts. Unchanged content makes no release. If the master runs already, it publishes and serves the image, too.
 * Errors: STATE_NOT_MASTER, METADATA_FORKED unless forced, those of {@link checkRequest}, {@link publishRelease} and {@link serve}.
 */
export async function seed(options: SeedOptions): Promise<Published> {
  const { stateDir, site, name, once, command, signal } = options
  // What was asked for is looked at before a site is made for it.
  const size = await checkRequest(options)
  const there = await publishThere(stateDir, { ...options, disk: resolve(options.disk) }, options)
  if (there !== undefined) {
    options.report({ type: 'published', published: there })
    return there
  }
  const listen = listenToRemember(options)
  const opened = { command, report: options.report, opening: !once }
  const machine = await openSite(stateDir, { site, name, listen: listen ?? [] }, opened)
  const publish = async (said: Said, report: AgentOptions['report']): Promise<PublishedRelease> => {
    const release = await publishRelease(machine, options, { size, listen, said, report, signal })
    report({ type: 'published', published: release.published })
    return release
  }
  try {
    // What another machine has signed with the keys of this one is signed over only if that is said.
    if (options.force) machine.trust.takeForks()
    if (once) {
      const { published } = await publish(await askMembers(machine, options), machine.telling(options.report))
      await rememberServing(machine, options)
      return published
    }
    let published: Published | undefined
    const prepare = async (node: MeshNode, report: AgentOptions['report']): Promise<Offer> => {
      const release = await publish(await hearMembers(machine, node, signal), report)
      node.forkSettled()
      published = release.published
      return { manifest: release.manifest, path: release.path, whole: true }
    }
    await serve(machine, prepare, options)
    assert(published !== undefined)
    return published
  } finally {
    await machine.close()
  }
}
