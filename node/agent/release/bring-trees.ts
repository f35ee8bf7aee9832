import { toHex } from '../../../protocol/digest.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { ensureTree } from '../../restore/tree-fetch.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { Machine } from '../machine/machine.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'

/**
 * The hash trees of this machine, with those fetched that a rollback to `earlier` needs: that of the release itself, and those of what
 * reachable machines hold, which tell where its blocks are. A master that was set up from a copy without `trees/` has none.
 * Errors: BLOCKS_UNAVAILABLE if nobody who can be reached has the tree of the release.
 */
export async function bringTrees(
  earlier: VerifiedManifest,
  { machine, node }: { readonly machine: Machine; readonly node: MeshNode },
): Promise<TreeStore> {
  const trees = new TreeStore(await machine.home.subdirectory('trees'))
  const releases = machine.trust.view().releases(earlier.image)
  const bring = async (facts: VerifiedManifest): Promise<void> => {
    if (await trees.has(facts)) return
    const { tree } = await ensureTree({
      facts,
      trees,
      others: releases,
      fetcher: async () => ({ ledger: node.swarm.ledger, fetch: (request, ended) => node.swarm.fetch(request, ended) }),
      progress: () => undefined,
      // When the command ends, the swarm ends what it fetches.
      signal: new AbortController().signal,
    })
    await tree.close()
  }
  for (const release of releases.filter(({ root }) => node.swarm.holders(toHex(root)).length > 0)) {
    // Without it, fewer blocks are known to be somewhere.
    await bring(release).catch(ignoreFault)
  }
  await bring(earlier).catch((error: unknown) => {
    if (!isMeshError(error, 'PEERS_UNREACHABLE', 'BLOCKS_UNAVAILABLE')) throw error
    throw missingTree(earlier, error)
  })
  return trees
}

function missingTree({ image, release }: VerifiedManifest, cause: MeshError): MeshError {
  const text = `the hash tree of release ${release} of ${image} is neither on this master nor on a machine that can be reached (${cause.message}); start a machine whose disk holds release ${release}, or put the folder trees/ of the old master into the state directory`
  return new MeshError('BLOCKS_UNAVAILABLE', text, { cause })
}

function ignoreFault(error: unknown): void {
  if (!isMeshError(error)) throw error
}
