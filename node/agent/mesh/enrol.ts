import { hostname } from 'node:os'
import type { Digest } from '../../../protocol/digest.ts'
import type { MachineFacts } from '../../../protocol/enrol-messages.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { isMachineName } from '../../../protocol/names.ts'
import { contentOf } from '../../disk/blank-disk.ts'
import { compareDisks } from '../../disk/compare-disks.ts'
import { openDevice } from '../../disk/file-device.ts'
import { Desk } from '../machine/desk.ts'
import { readHardware, shortFact } from '../machine/hardware.ts'
import { holdState } from '../machine/hold-state.ts'
import { macAddresses } from '../machine/mac-addresses.ts'
import type { AgentOptions } from '../machine/options.ts'
import { rememberedMachine } from '../machine/remembered-machine.ts'
import { askAdmission } from './ask-admission.ts'
import { keepOwnKey, loadOwnKey } from './own-key.ts'
import { type DiskToLayOut, lookAtDisk, refuseOtherSite, settle, settleParts } from './settle.ts'
import { siteTag } from './start-host.ts'

/** Result of `mesh enrol`. */
export interface Enrolled {
  readonly event: 'enrolled'
  readonly site: string
  readonly group: string
  readonly name: string
  readonly id: string
  readonly image: string
  readonly release: number
  /** Somebody has said to the master that what the disk holds may be destroyed. */
  readonly mayWipe: boolean
}

/** Options of `mesh enrol`. */
interface EnrolOptions extends AgentOptions {
  /** SHA-256 of the site's first root metadata: all that the machine knows. */
  readonly siteId: Digest
  /** Multiaddrs of the master; it is looked for by multicast DNS, too. */
  readonly master: readonly string[]
  /** Default: the one that this machine has. */
  readonly disk?: string
  /** The name to propose. Default: the host name, or one that is made of a network card's address. */
  readonly name?: string
  /** Needed only if the site publishes several images. */
  readonly image?: string
  readonly force: boolean
  /** Ask with a new key, and leave the one that was here: it was removed from the site, or copied. */
  readonly newIdentity: boolean
  /** The disk is a whole one, and is laid out afterwards. */
  readonly toLayOut?: DiskToLayOut
  /** How long to wait to be approved, in milliseconds; default: for ever. */
  readonly wait?: number
}

/**
 * `mesh enrol`: makes this machine, which has no token, a member of a site, as soon as somebody has approved it on the master. It keeps
 * its key from the first moment, so one that is started anew goes on with the same code. The disk is looked at, not changed; of one that
 * holds something, and is not its own already, it becomes a machine only if the approval says that this may be wiped. Errors: those of `askAdmission`, of the disk,
 * and of the state directory.
 */
export async function enrol(options: EnrolOptions): Promise<Enrolled> {
  const { stateDir, command, report, siteId } = options
  const before = await rememberedMachine(stateDir)
  const disk = options.disk ?? before?.disk
  if (disk === undefined) throw new MeshError('USAGE', 'give the --disk that is to be restored')
  if (options.mdns === false && options.master.length === 0)
    throw new MeshError('USAGE', 'without multicast DNS the master is found only at --master')
  const { device, identity } = await lookAtDisk(disk, options)
  const isOwn = before?.diskIdentity !== undefined && compareDisks(before.diskIdentity, identity) === 'same'
  const facts = { ...(await factsOf(disk, options.name)), ...(isOwn ? { holds: '' } : {}) }
  const state = await holdState(stateDir, { create: true, command })
  const desk = await Desk.open({ state, command, report })
  try {
    await refuseOtherSite(state, { siteId, by: 'the site that was named' })
    const key = await loadOwnKey(state, options)
    const { MeshHost } = await import('../../net/host.ts')
    const mdns = options.mdns === false ? {} : { mdnsTag: siteTag(siteId) }
    const warn = (text: string): void => report({ type: 'warning', text })
    const host = await MeshHost.start({ key, listen: [], gate: { admits: () => true }, warn, ...mdns })
    try {
      const { toLayOut } = options
      const whole = toLayOut === undefined ? device : undefined
      const joiner = { name: facts.name, device: whole, image: options.image, imageBefore: before?.image, toLayOut }
      const { master, signal, wait: waitMs } = options
      const asked = { state, siteId, host, master, facts, joiner, waitMs, signal, report }
      const { site, group, name, role, mayWipe, manifest, master: found } = await askAdmission(asked)
      const [target = { disk, identity }, ...parts] = toLayOut?.targets(identity) ?? []
      const place = { disk: target.disk, device: whole, diskIdentity: target.identity }
      const having = { ...place, manifest, master: found, listenBefore: before?.listen }
      await settle(state, { site, siteId, name, id: key.id, role }, having, options)
      await settleParts(state, parts)
      await keepOwnKey(state, options)
      const { image = '', release = 0 } = manifest ?? {}
      return { event: 'enrolled', site, group, name, id: key.id, image, release, mayWipe }
    } finally {
      await host.stop()
    }
  } finally {
    await desk.close()
    await state.close()
  }
}

/** What this machine says of itself. Errors: USAGE if it has no network card. */
async function factsOf(disk: string, name: string | undefined): Promise<MachineFacts> {
  const mac = await macAddresses()
  const [card] = mac
  if (card === undefined) throw new MeshError('USAGE', 'this machine has no network card that could name it')
  const device = await openDevice(disk, { writable: false })
  const holds = await contentOf(device).finally(() => device.close())
  const host = hostname().split('.')[0] ?? ''
  const own = isMachineName(host) && !NO_NAME.test(host) ? host : `pc-${card.replaceAll(':', '')}`
  const hardware = await readHardware()
  return { name: name ?? own, mac, ...hardware, disk: shortFact(disk), holds: shortFact(holds ?? '') }
}

/** Host names that systems have which nobody has named. */
const NO_NAME = /^(localhost|debian|ubuntu|linux|initramfs|none)$/i
