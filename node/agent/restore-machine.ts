import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { METADATA_WAIT_MS } from '../../protocol/constants.ts'
import { toHex } from '../../protocol/digest.ts'
import { isMeshError } from '../../protocol/errors.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import { openDevice } from '../disk/file-device.ts'
import { HashPool } from '../disk/hash-pool.ts'
import { assertNotMounted } from '../disk/mounts.ts'
import type { BlockFetcher } from '../restore/block-fetcher.ts'
import type { Receipt } from '../restore/receipt.ts'
import { restore } from '../restore/restore.ts'
import type { ServingConfig } from '../state/state-directory.ts'
import type { DiskSource } from '../store/disk-source.ts'
import { TreeStore } from '../store/tree-store.ts'
import type { VerifiedManifest } from '../trust/verified-manifest.ts'
import type { AgentOptions } from './agent.ts'
import { readDiskState, writeDiskState } from './disk-state.ts'
import { linger } from './linger.ts'
import { forgetLogDoubt, readLogDoubt, recordLogDoubt } from './log-doubt.ts'
import { secureRandom } from './log-watch.ts'
import { Machine } from './machine.ts'
import { type HookOptions, type HooksReport, runMachineHooks, writeReceiptFile } from './machine-hooks.ts'
import { openWriteLog, readLogConfig } from './machine-log.ts'
import { MeshNode, nameOf } from './mesh-node.ts'
import { type Offer, openSource } from './open-source.ts'
import { keepFailure, keepReceipt } from './own-receipts.ts'
import { limitsOf, rememberServing, stepBack } from './serving.ts'

export interface RestoreMachineOptions extends AgentOptions {
  /** Default: the image of this machine. */
  readonly image?: string
  /** Default: the newest one. */
  readonly release?: number
  readonly force: boolean
  /** How long to wait for peers, and for somebody who holds what is missing. */
  readonly waitMs?: number
  /** How long to serve the others at most once the disk is restored; default: not at all. */
  readonly lingerMs?: number
  /** Run at the end, unless a monitor is set up, which runs them. */
  readonly hooks?: HookOptions
  readonly hooked?: (report: HooksReport) => void
}

/**
 * `mesh restore`: brings this machine's disk to the newest release it trusts. The network is used only if something has
 * to be fetched; then newer metadata is looked for first, and a newer release wins.
 */
export async function restoreMachine(options: RestoreMachineOptions): Promise<Receipt> {
  await using stack = new AsyncDisposableStack()
  const machine = stack.adopt(await Machine.open(options.stateDir, { configured: options.configured }), (it) =>
    it.close(),
  )
  const serving = await rememberServing(machine, options)
  const network = stack.adopt(new LazyNetwork(machine, options, serving), (it) => it.stop())
  // What this has opened for writing is closed when it returns: the boot that follows may mount it.
  const startedAt = Date.now()
  const { receipt, manifest } = await restoreDisk(machine, network, options, stack).catch(async (error: unknown) => {
    // What is wrong is told in any case.
    await keepFailure(machine, { ...options, startedAt }, error).catch((reason: Error) =>
      options.report({ type: 'warning', text: `this failure is not recorded: ${reason.message}` }),
    )
    throw error
  })
  await runHooks(machine, options)
  if (options.lingerMs !== undefined) await network.linger(manifest, options.lingerMs)
  return receipt
}

/** Without a monitor there is no log that the hooks' writes belong into: the next restore scans anyway. */
async function runHooks(machine: Machine, options: RestoreMachineOptions): Promise<void> {
  const { stateDir, hooks, signal, report } = options
  if (hooks === undefined || (await readLogConfig(stateDir)) !== undefined) return
  const path = machine.diskPath
  const flush = async (): Promise<void> => {
    const device = await openDevice(path, { writable: true })
    await device.flush().finally(() => device.close())
  }
  const done = await runMachineHooks({ stateDir, hooks, place: { MESH_DEVICE: path }, flush, signal, report })
  if (done !== undefined) options.hooked?.(done)
}

interface Restored {
  readonly receipt: Receipt
  readonly manifest: VerifiedManifest
}

/** What goes on being served is opened until the `outer` stack ends. */
async function restoreDisk(
  machine: Machine,
  network: LazyNetwork,
  options: RestoreMachineOptions,
  outer: AsyncDisposableStack,
): Promise<Restored> {
  await using stack = new AsyncDisposableStack()
  const path = machine.diskPath
  const first = machine.manifest(options.image, options.release)
  await assertNotMounted(path, options)
  const device = stack.adopt(await openDevice(path, { writable: true }), (it) => it.close())
  const pool = stack.adopt(new HashPool({ here: true }), (it) => it.close())
  const trees = new TreeStore(await machine.state.subdirectory('trees'))
  let treeRefetched = false
  for (let manifest = first; ; ) {
    try {
      const receipt = await restoreTo(manifest, { machine, device, pool, trees, network, options })
      options.report({ type: 'receipt', receipt })
      if (options.lingerMs !== undefined) await network.keepOffering({ manifest, path, whole: true }, pool, outer)
      return { receipt, manifest }
    } catch (error) {
      if (error instanceof ReleaseSuperseded) {
        options.report({ type: 'note', text: `release ${manifest.release} is superseded; restoring the newest one` })
        manifest = machine.manifest(options.image)
      } else if (isMeshError(error, 'TREE_CORRUPT') && !treeRefetched) {
        options.report({ type: 'warning', text: `${error.message}; fetching the hash tree again` })
        treeRefetched = true
        await trees.remove(manifest)
      } else throw error
    } finally {
      network.withdraw()
    }
  }
}

interface RestoreParts {
  readonly machine: Machine
  readonly device: BlockDevice
  readonly pool: HashPool
  readonly trees: TreeStore
  readonly network: LazyNetwork
  readonly options: RestoreMachineOptions
}

/** One restore to one release, from the log's opening to its durable receipt. */
async function restoreTo(manifest: VerifiedManifest, parts: RestoreParts): Promise<Receipt> {
  const { machine, device, pool, trees, network, options } = parts
  const { image, release } = manifest
  const state = { image, release, root: toHex(manifest.root) }
  const doubt = await readLogDoubt(machine.state)
  // A log that cannot be had now may be back for the next restore, which must not go by it if this one is cut off.
  let aside = false
  let receipt: Receipt
  {
    await using stack = new AsyncDisposableStack()
    const log = await openWriteLog(options.stateDir, device, manifest, stack)
    aside = log.source === 'scan' && (await readLogConfig(options.stateDir)) !== undefined
    receipt = await restore({
      device,
      manifest,
      trees,
      others: machine.trust.view().releases(image),
      log,
      ...(doubt === undefined ? {} : { doubt }),
      pool,
      fetcher: () => network.fetcher(manifest),
      beforeWriting: async () => {
        if (aside) await recordLogDoubt(machine.state, 'a restore without the log was cut off')
        await writeDiskState(machine.state, { state: 'partial', ...state })
      },
      serving: (source) => network.offer(source),
      onLogMiss: (block) => {
        const text = `block ${block} was wrong though the write log called it clean; reading the whole disk`
        options.report({ type: 'warning', text })
      },
      progress: (progress) => options.report({ type: 'progress', ...progress, ...network.peerCount() }),
      signal: options.signal,
      machine: machine.config.name,
      nameOf: (peerId) => nameOf(machine, peerId),
      random: secureRandom,
    })
    // The log is closed, durably, before anything says that the disk is whole.
  }
  if (!isDeepStrictEqual(await readDiskState(machine.state), { state: 'whole', ...state }))
    await writeDiskState(machine.state, { state: 'whole', ...state })
  await keepReceipt(machine, receipt)
  await writeReceiptFile(options.stateDir, receipt)
  if (doubt !== undefined || aside) await forgetLogDoubt(machine.state)
  return receipt
}

/** Peers told of a newer release before anything was fetched. */
class ReleaseSuperseded extends Error {}

/** The network of a restore: started when first needed, stopped with the command. */
class LazyNetwork {
  readonly #machine: Machine
  readonly #options: RestoreMachineOptions
  readonly #serving: ServingConfig
  #node: Promise<MeshNode> | undefined
  #running: MeshNode | undefined
  #offered: DiskSource | undefined

  constructor(machine: Machine, options: RestoreMachineOptions, serving: ServingConfig) {
    this.#machine = machine
    this.#serving = serving
    this.#options = options
  }

  /** Errors: ReleaseSuperseded, PORT_TAKEN, ADDRESS_INVALID. */
  async fetcher(manifest: VerifiedManifest): Promise<BlockFetcher> {
    this.#node ??= this.#start()
    const node = await this.#node
    const newest = this.#machine.trust.view().newest(manifest.image)
    if (this.#options.release === undefined && newest !== undefined && newest.release > manifest.release) {
      throw new ReleaseSuperseded()
    }
    return node.swarm
  }

  /** Verified blocks of the disk may be served while the restore runs. */
  offer(source: DiskSource): void {
    this.#offered = source
    this.#running?.hold(source)
  }

  withdraw(): void {
    if (this.#offered !== undefined) this.#running?.drop(this.#offered)
    this.#offered = undefined
  }

  /** The restored disk is offered as it is read from now on, before what the restore offered is withdrawn. */
  async keepOffering(offer: Offer, pool: HashPool, stack: AsyncDisposableStack): Promise<void> {
    try {
      this.#node ??= this.#start()
      const node = await this.#node
      const source = await openSource(this.#machine, offer, pool, this.#options, stack)
      if (source !== undefined) node.hold(source)
    } catch (error) {
      // The disk is restored all the same.
      if (!isMeshError(error)) throw error
      this.#options.report({ type: 'warning', text: `the others cannot be served: ${error.message}` })
    }
  }

  /** Serves the others until they are done, for `ms` at most. */
  async linger(manifest: VerifiedManifest, ms: number): Promise<void> {
    const { signal, report } = this.#options
    if (this.#running === undefined) return
    stepBack(this.#serving)
    report({ type: 'note', text: `serving the others until they are done, ${ms / 1000} s at most` })
    await linger(this.#running, manifest, { ms, signal })
  }

  peerCount(): { peers?: number } {
    return this.#running === undefined ? {} : { peers: this.#running.connectedMembers().length }
  }

  async stop(): Promise<void> {
    await (await this.#node?.catch(() => undefined))?.stop()
  }

  async #start(): Promise<MeshNode> {
    const { listen, mdns, report, signal, waitMs } = this.#options
    const node = await MeshNode.start({ machine: this.#machine, listen, mdns, report, waitMs, gradual: true })
    this.#running = node
    node.limitServing(limitsOf(this.#serving, false))
    report({ type: 'listening', peerId: node.peerId, addresses: node.addresses() })
    if (this.#offered !== undefined) node.hold(this.#offered)
    // The first peer's metadata tells whether there is a newer release; without a peer there is nothing to wait for long.
    const deadline = Date.now() + Math.min(METADATA_WAIT_MS, waitMs ?? METADATA_WAIT_MS)
    while (node.swarm.peers().length === 0 && Date.now() < deadline && !signal.aborted) await sleep(20)
    await Promise.race([node.metadataSettled(), sleep(METADATA_WAIT_MS, undefined, { ref: false })])
    return node
  }
}
