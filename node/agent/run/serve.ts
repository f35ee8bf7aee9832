import { type ControlMethod, ControlServer } from '../../control/control-server.ts'
import { HashPool } from '../../disk/hash-pool.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import { readLogConfig } from '../log/log-config.ts'
import { readDiskState } from '../machine/disk-state.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { rememberReset, rememberServing } from '../machine/settings.ts'
import { MeshNode } from '../mesh/mesh-node.ts'
import { DiskWatch } from '../offer/disk-watch.ts'
import { LogWatch } from '../offer/log-watch.ts'
import type { HeldStatus } from '../offer/open-source.ts'
import { type Offer, openSource } from '../offer/open-source.ts'
import { limitsOf, stepBack, uplinkOf } from '../offer/serving-limits.ts'
import { UseWatch } from '../offer/use-watch.ts'
import { answerOperators } from '../operate/answer-operators.ts'
import { Operating } from '../operate/ask-machines.ts'
import { encodeHolder, holdersOf } from '../operate/holders.ts'
import { GATHER_WAIT_MS, RECEIPTS_PER_CONTROL_PAGE } from '../operate/limits.ts'
import { lastReceipt } from '../receipts/own-receipts.ts'
import { ReceiptArchive } from '../receipts/receipt-archive.ts'
import { ReceiptGatherer } from '../receipts/receipt-gatherer.ts'
import { Stager } from '../stage/stager.ts'
import { RENEW_TICK_MS } from './limits.ts'
import { openMaster, requireMaster } from './master.ts'
import { describePeers, describeStatus } from './status.ts'

/** Serves until the signal aborts: the common part of `mesh up` and `mesh seed`. */
export async function serve(
  machine: Machine,
  offer: Offer | undefined,
  options: AgentOptions & { command: string },
): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const { signal, report } = options
  const serving = await rememberServing(machine, options)
  const reset = await rememberReset(machine, options)
  stepBack(serving)
  const pool = stack.adopt(new HashPool(), (it) => it.close())
  const master = machine.config.role === 'master' ? await openMaster(machine, options) : undefined
  let asking: Asking | undefined
  const node = stack.adopt(
    await MeshNode.start({
      machine,
      listen: options.listen,
      mdns: options.mdns,
      report: (event) => {
        report(event)
        if (event.type !== 'peer') return
        if (event.up) asking?.gatherer.noticed(event.id)
        else asking?.operating.left(event.id)
      },
      ...(master === undefined ? {} : { enrolment: master.enrolment }),
    }),
    (it) => it.stop(),
  )
  node.limitServing(limitsOf(serving, false))
  node.limitUplink(uplinkOf(serving))
  let stager: Stager | undefined
  const use = new UseWatch({
    check: serving.inUseCheck,
    changed: (inUse) => {
      node.limitServing(limitsOf(serving, inUse))
      stager?.setInUse(inUse)
    },
    warn: (text) => report({ type: 'warning', text }),
  })
  use.start()
  stack.adopt(use, (it) => it.stop())
  await answerOperators({ machine, node, use, reset, staging: () => stager?.status(), report }, stack)
  const { operating, gatherer, methods } = askOthers(machine, node, report, stack)
  asking = { operating, gatherer }
  let held: HeldStatus | undefined
  const control = await ControlServer.listen(machine.state.directory, {
    status: async () => ({
      ...(await describeStatus(machine, {
        node,
        inUse: use.inUse,
        held,
        staging: stager?.status(),
        receipt: await lastReceipt(machine),
      })),
      running: true,
      command: options.command,
      pid: process.pid,
    }),
    peers: async () => describePeers(machine, node),
    invite: async (params) => requireMaster(master, machine).invite(node, params),
    ...methods,
    holders: async (params) => holdersOf(String(params.root), machine, node, held).map(encodeHolder),
    remove: async (params) => requireMaster(master, machine).remove(String(params.name)),
    disk: async () => ({ disk: await readDiskState(machine.state), staging: stager?.status() }),
    rollback: async (params) => requireMaster(master, machine).rollback(node, held?.source, params),
  })
  stack.adopt(control, (it) => it.close())
  // From here on other commands find this one.
  report({ type: 'listening', peerId: node.peerId, addresses: node.addresses() })
  if (machine.isOperator(machine.config.id)) {
    gatherer.start()
    for (const { id } of node.connectedMembers()) gatherer.noticed(id)
  }
  if (master !== undefined)
    stack.adopt(
      setInterval(() => void master.renew(), RENEW_TICK_MS),
      clearInterval,
    )
  const source = offer === undefined ? undefined : await openSource(machine, offer, pool, options, stack)
  if (offer !== undefined && source !== undefined) {
    const { manifest } = offer
    held = { manifest, source }
    await watchLog(machine, offer, source, options, stack)
    node.hold(source)
    report({ type: 'serving', image: manifest.image, release: manifest.release, blocks: source.heldCount })
    if (master !== undefined) await watch(offer, source, pool, options, stack)
    stager = new Stager({ machine, node, manifest, source, config: serving, report })
    stager.setInUse(use.inUse)
    stager.start()
    stack.adopt(stager, (it) => it.stop())
  }
  if (!signal.aborted)
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}

interface Asking {
  readonly operating: Operating
  readonly gatherer: ReceiptGatherer
}

/** What the master and operators' machines ask of the others. */
function askOthers(machine: Machine, node: MeshNode, report: AgentOptions['report'], stack: AsyncDisposableStack) {
  const operating = new Operating(machine, node)
  const gatherer = new ReceiptGatherer({
    machine,
    ask: (peers, request) => operating.ask(peers, request),
    warn: (text) => report({ type: 'warning', text }),
  })
  stack.adopt(gatherer, (it) => it.stop())
  // Closed first: a round that is under way ends by it.
  stack.adopt(operating, (it) => it.close())
  const archive = new ReceiptArchive(machine.state)
  const methods: Record<string, ControlMethod> = {
    operate: async (params) => operating.askAll(params),
    gather: async () => gatherer.gather(GATHER_WAIT_MS),
    receipts: async ({ after }) => archive.list(String(after ?? ''), RECEIPTS_PER_CONTROL_PAGE),
  }
  return { operating, gatherer, methods }
}

/** Before anything is offered: what the write log calls dirty is not. */
async function watchLog(
  machine: Machine,
  offer: Offer,
  source: DiskSource,
  { report }: AgentOptions,
  stack: AsyncDisposableStack,
): Promise<void> {
  const config = await readLogConfig(machine.state.directory)
  if (config === undefined || offer.path !== machine.config.disk) return
  const { disk } = source
  const log = new LogWatch({ config, state: machine.state, manifest: offer.manifest, disk, source, report })
  await log.start()
  stack.adopt(log, (it) => it.stop())
}

async function watch(
  offer: Offer,
  source: DiskSource,
  pool: HashPool,
  options: AgentOptions,
  stack: AsyncDisposableStack,
): Promise<void> {
  const disk = new DiskWatch({
    path: offer.path,
    source,
    preserve: offer.manifest.preserve,
    pool,
    changed: (blocks) => {
      const text = `${offer.path} was changed after it was published: ${blocks} blocks of ${offer.manifest.image} are no longer on it; run \`mesh seed\` again to publish the change`
      options.report({ type: 'warning', text })
    },
  })
  await disk.start()
  stack.adopt(disk, (it) => it.stop())
}
