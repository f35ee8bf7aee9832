import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { sameContent } from '../../store/build-tree.ts'
import { TreeStore } from '../../store/tree-store.ts'
import { chooseModel } from '../machine/choose-disk.ts'
import type { WouldPublish } from '../machine/events.ts'
import { Machine, type OpenOptions } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { imageOf, publishedFrom } from '../machine/published-images.ts'
import { askMembers, NOTHING_SAID } from '../mesh/ask-members.ts'
import { assertMayPublish } from './open-site.ts'
import { checkRequest } from './publish-release.ts'
import { readContent } from './release-content.ts'
import { planRelease, type ReleaseRequest } from './release-plan.ts'
import { weighRelease } from './weigh-release.ts'

/**
 * `mesh seed --dry-run`: hashes the disk and says what its release would change, or why it would be refused. Nothing is signed,
 * copied or remembered; a site is not created.
 * Errors: those of {@link checkRequest} and of a publication.
 */
export async function previewRelease(
  stateDir: string,
  request: ReleaseRequest,
  options: Pick<AgentOptions, 'command' | 'listen' | 'mdns' | 'report' | 'signal'>,
): Promise<WouldPublish> {
  const size = await checkRequest(request)
  await using stack = new AsyncDisposableStack()
  const machine = await openMaster(stateDir, options, stack)
  const { signal } = options
  const report = machine?.telling(options.report) ?? options.report
  const last = machine === undefined ? undefined : await publishedFrom(machine, resolve(request.disk))
  if (machine !== undefined) await chooseModel(last ?? machine.config, resolve(request.disk), request)
  const plan = planRelease(machine, { ...request, ...imageOf(request, last) }, size)
  const directory = stack.adopt(await mkdtemp(join(tmpdir(), 'mesh-dry-run-')), (it) => rm(it, { recursive: true }))
  const trees = new TreeStore(directory)
  const { disk, force } = request
  const content = await readContent({ ...plan, disk, trees, force, report, signal })
  const { image, before, release, blockSize, preserve } = plan
  const unchanged = before !== undefined && sameContent(before, content.tree, preserve)
  // Beside a master that runs, this one is not in the network.
  const isApart = machine === undefined || machine.holder !== undefined
  const { clocks, fork } = isApart ? NOTHING_SAID : await askMembers(machine, options)
  if (fork !== undefined && !force) throw fork
  if (!unchanged) await weighRelease({ machine, disk, plan, content, trees, clocks, force, report })
  const root = toHex(content.tree.root)
  const number = unchanged ? before.release : release
  return { event: 'would-publish', image, release: number, root, size, blockSize, unchanged }
}

/** The master of this state directory, until the stack ends; undefined if there is no site yet. */
async function openMaster(
  stateDir: string,
  { command, report }: OpenOptions,
  stack: AsyncDisposableStack,
): Promise<Machine | undefined> {
  try {
    const opened = Machine.open(stateDir, { command, report }).catch((error: unknown) => {
      if (isMeshError(error, 'STATE_IN_USE')) return Machine.read(stateDir)
      throw error
    })
    const machine = stack.adopt(await opened, (it) => it.close())
    assertMayPublish(machine.config)
    return machine
  } catch (error) {
    if (isMeshError(error, 'STATE_MISSING')) return undefined
    throw error
  }
}
