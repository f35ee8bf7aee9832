import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { encodeJoinToken } from '../../../protocol/join-token.ts'
import { type ControlMethod, ControlServer } from '../../control/control-server.ts'
import { HashPool } from '../../disk/hash-pool.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import { type Invitation, InvitationBook } from '../../trust/invitations.ts'
import { isPlaceName, type Place } from '../../trust/members.ts'
import { SiteSigner } from '../../trust/site-signer.ts'
import { readLogConfig } from '../log/open-log.ts'
import { readDiskState } from '../machine/disk-state.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { Enrolment } from '../mesh/enrolment.ts'
import { MeshNode } from '../mesh/mesh-node.ts'
import { DiskWatch } from '../offer/disk-watch.ts'
import { LogWatch } from '../offer/log-watch.ts'
import type { HeldStatus } from '../offer/open-source.ts'
import { type Offer, openSource } from '../offer/open-source.ts'
import { limitsOf, rememberServing, stepBack, uplinkOf } from '../offer/serving-limits.ts'
import { UseWatch } from '../offer/use-watch.ts'
import { answerOperators, isOperator, rememberReset } from '../operate/answer-operators.ts'
import { Operating } from '../operate/ask-machines.ts'
import { encodeHolder, holdersOf } from '../operate/holders.ts'
import { GATHER_WAIT_MS, RECEIPTS_PER_CONTROL_PAGE } from '../operate/limits.ts'
import { lastReceipt } from '../receipts/own-receipts.ts'
import { ReceiptArchive } from '../receipts/receipt-archive.ts'
import { ReceiptGatherer } from '../receipts/receipt-gatherer.ts'
import { publishEarlier } from '../release/rollback.ts'
import { Stager } from '../stage/stager.ts'
import { RENEW_TICK_MS } from './limits.ts'
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
  if (isOperator(machine, machine.config.id)) {
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

function requireMaster(master: Master | undefined, machine: Machine): Master {
  if (master !== undefined) return master
  throw new MeshError('STATE_NOT_MASTER', `${machine.config.name} is not the master of the site`)
}

type Master = Awaited<ReturnType<typeof openMaster>>

/** What only the master does: enrol machines and keep the metadata from expiring. */
async function openMaster(machine: Machine, options: AgentOptions) {
  const { trust, state, config } = machine
  const signer = await SiteSigner.open({ keysDir: state.path('keys'), trust })
  const invitations = await InvitationBook.load(state.sublevel<Invitation>('invitations'))
  const enrolment = new Enrolment({
    trust,
    signer,
    invitations,
    site: config.site,
    joined: (member) => options.report({ type: 'member', ...member }),
  })
  await signer.renew()
  return {
    enrolment: { isOpen: () => invitations.anyOpen(), serve: enrolment.serve.bind(enrolment) },
    renew: async (): Promise<void> => {
      await signer
        .renew()
        .catch((error: Error) => options.report({ type: 'warning', text: `metadata not renewed: ${error.message}` }))
    },
    remove: async (name: string) => {
      const { id } = await signer.removeMember(name)
      return { event: 'removed', name, id }
    },
    rollback: (node: MeshNode, source: DiskSource | undefined, params: Readonly<Record<string, unknown>>) => {
      const { image, label } = params
      const request = {
        release: Number(params.release),
        force: params.force === true,
        ...(typeof image === 'string' ? { image } : {}),
        ...(typeof label === 'string' ? { label } : {}),
      }
      return publishEarlier(request, { machine, signer, node, source })
    },
    invite: async (node: MeshNode, params: Readonly<Record<string, unknown>>) => {
      const [ttlMs, uses] = [Number(params.ttlMs), Number(params.uses)]
      const place = placeOf(params, config.site)
      const opened = await invitations.open({ ttlMs, uses, place })
      const told = Array.isArray(params.addresses) ? params.addresses.map(String) : []
      const addresses = [...told, ...reachable(node.addresses())]
      const token = encodeJoinToken({ siteId: trust.siteId, peerId: node.peerId, addresses, ...opened })
      return {
        event: 'invitation',
        token,
        ...place,
        siteId: toHex(trust.siteId),
        uses,
        expires: new Date(opened.expiresAt).toISOString(),
      }
    },
  }
}

/** What an invitation binds whoever joins by it to. Errors: USAGE. */
function placeOf(params: Readonly<Record<string, unknown>>, ownSite: string): Place {
  const { role = 'machine', site = ownSite, group = site } = params
  if (role !== 'machine' && role !== 'operator')
    throw new MeshError('USAGE', `${String(role)} is no role to invite as; there are machine and operator`)
  if (isPlaceName(site) && isPlaceName(group)) return { role, site, group }
  throw new MeshError('USAGE', 'the name of a site or a group has 1 to 128 printable characters')
}

/** Addresses that mean something to another machine; the loopback ones only if there are no others. */
function reachable(addresses: readonly string[]): string[] {
  const outside = addresses.filter((address) => !/^\/ip4\/127\.|^\/ip6\/::1\//.test(address))
  return outside.length > 0 ? outside : [...addresses]
}
