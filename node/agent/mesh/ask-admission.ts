import { setTimeout as sleep } from 'node:timers/promises'
import { type Digest, toHex } from '../../../protocol/digest.ts'
import type { EnrolReply, MachineFacts } from '../../../protocol/enrol-messages.ts'
import { type ErrorCode, isMeshError, MeshError } from '../../../protocol/errors.ts'
import { keyCode } from '../../../protocol/key-code.ts'
import type { MeshHost } from '../../net/host.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import type { TrustStore } from '../../trust/trust-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { AgentEvent } from '../machine/events.ts'
import { askMaster, type FoundMaster, MasterFinder } from './find-master.ts'
import { ENROL_AGAIN_BOUNDS_MS, ENROL_AGAIN_MS } from './limits.ts'
import { withMetadataFrom } from './metadata-sync.ts'
import { choose, type Joiner, offeredView, roleOf, takeMetadata } from './settle.ts'

/** What a machine that asks to be enrolled is, and where it looks for the master. */
interface AskOptions {
  readonly state: StateDirectory
  readonly siteId: Digest
  readonly host: MeshHost
  /** Multiaddrs of the master, besides multicast DNS. */
  readonly master: readonly string[]
  readonly facts: MachineFacts
  readonly joiner: Joiner
  /** How long it waits to be approved, in milliseconds; undefined: for ever. */
  readonly waitMs: number | undefined
  readonly signal: AbortSignal
  readonly report: (event: AgentEvent) => void
}

/** What the master has made of this machine, proven by the metadata of the site. */
interface Admitted {
  readonly site: string
  readonly group: string
  readonly name: string
  readonly role: 'operator' | 'machine'
  /** What the disk holds may be destroyed: somebody said so to the master. */
  readonly mayWipe: boolean
  readonly manifest: VerifiedManifest | undefined
  readonly master: FoundMaster
}

/**
 * Finds the master, asks to be let in, and waits until somebody has approved this machine. Everything that comes from the master is
 * believed only after it is proven to be the master of the site. What is wrong between disk and image is found before the machine is a
 * member. Errors: ENROLMENT_REFUSED; NOT_APPROVED, PEERS_UNREACHABLE or METADATA_INVALID after `waitMs`; INTERRUPTED; DISK_FOREIGN,
 * IMAGE_UNKNOWN, and those of the disk and of the metadata.
 */
export async function askAdmission(options: AskOptions): Promise<Admitted> {
  return new Asking(options).run()
}

/** The master cannot be asked at the moment. */
const LOST: readonly ErrorCode[] = ['PEERS_UNREACHABLE', 'REQUEST_TIMEOUT', 'PROTOCOL_VIOLATION']
/** Somebody has to do something on the master. */
const MENDED_THERE: readonly ErrorCode[] = ['METADATA_FORKED', 'SITE_FULL', 'NAME_TAKEN']

const wantsImage = ({ device, toLayOut }: Joiner): boolean => device !== undefined || toLayOut !== undefined

class Asking {
  readonly #options: AskOptions
  readonly #finder: MasterFinder
  readonly #until: number
  #told: string | undefined
  /** The machine was told to wait: the master is there. */
  #waits = false

  constructor(options: AskOptions) {
    const { host, siteId, master: addresses, report, waitMs } = options
    this.#options = options
    const warn = (text: string): void => report({ type: 'warning', text })
    this.#finder = new MasterFinder({ host, siteId, addresses, warn })
    this.#until = waitMs === undefined ? Number.POSITIVE_INFINITY : performance.now() + waitMs
  }

  async run(): Promise<Admitted> {
    for (;;) {
      const master = await this.#find()
      const admitted = await this.#askAt(master)
      if (admitted !== undefined) return admitted
    }
  }

  async #find(): Promise<FoundMaster> {
    for (;;) {
      const found = await this.#finder.look()
      if (found !== undefined) return found
      const { fault } = this.#finder
      const isOther = fault !== undefined && fault.code !== 'PEERS_UNREACHABLE'
      this.#tell(isOther ? fault.message : this.#waits ? 'the master does not answer now' : 'looks for the master')
      await this.#pause(ENROL_AGAIN_MS)
    }
  }

  /** Undefined if the master is lost. */
  async #askAt(master: FoundMaster): Promise<Admitted | undefined> {
    for (;;) {
      try {
        const reply = await this.#ask(master, false)
        if (reply.state === 'refused') throw this.#refused()
        if (reply.state === 'approved') {
          const admitted = await this.#enter(master, reply)
          if (admitted !== undefined) return admitted
        }
        this.#waits = true
        this.#tell(reply.why ?? (reply.state === 'later' ? 'the master has no room for more that wait' : ''))
        await this.#pause(reply.waitMs ?? ENROL_AGAIN_MS)
      } catch (error) {
        if (!isMeshError(error)) throw error
        const { code, message } = error
        if (LOST.includes(code)) return undefined
        if (!MENDED_THERE.includes(code)) throw error
        this.#tell(message)
        await this.#pause(ENROL_AGAIN_MS)
      }
    }
  }

  #ask(master: FoundMaster, enrol: boolean): Promise<EnrolReply> {
    const { host, siteId, facts } = this.#options
    return askMaster(host, master.peerId, { type: 'enrol-request', siteId, facts, ...(enrol ? { enrol } : {}) })
  }

  /** The machine is approved: looks whether disk and image go together, then becomes a member. Undefined if it is approved no longer. */
  async #enter(master: FoundMaster, reply: EnrolReply): Promise<Admitted | undefined> {
    const { host, state, siteId, facts, joiner } = this.#options
    const { site = '', wipe = false } = reply
    if (facts.holds !== '' && !wipe)
      throw new MeshError(
        'DISK_FOREIGN',
        `${facts.disk} holds ${facts.holds}, and the approval does not say that it may be wiped`,
      )
    const open = (protocol: string) => host.open(master.peerId, protocol)
    const view = await withMetadataFrom(open, (fetch) => offeredView(state, siteId, fetch))
    if (view.memberById(master.peerId)?.role !== 'master')
      throw new MeshError(
        'METADATA_INVALID',
        `${master.addresses.join(', ')} is not the master that the member list names`,
      )
    if (wantsImage(joiner)) choose(view, { site, role: 'machine' }, joiner)
    const entered = await this.#ask(master, true)
    if (entered.state !== 'enrolled') return undefined
    const trust = await withMetadataFrom(open, (fetch) => takeMetadata(state, siteId, fetch))
    return { ...this.#entered(trust, joiner), mayWipe: entered.wipe === true, master }
  }

  #entered(trust: TrustStore, joiner: Joiner): Omit<Admitted, 'mayWipe' | 'master'> {
    const view = trust.view()
    const { peerId } = this.#options.host
    const own = view.memberById(peerId)
    const role = roleOf(trust, peerId, toHex(trust.siteId).slice(0, 8))
    const [site, group, name] = [own?.site ?? '', own?.group ?? '', own?.name ?? '']
    const manifest = !wantsImage(joiner) ? undefined : choose(view, { site, role }, joiner)
    return { site, group, name, role, manifest }
  }

  #refused(): MeshError {
    const { host, facts } = this.#options
    return new MeshError('ENROLMENT_REFUSED', `the master refuses ${facts.name}, code ${keyCode(host.peerId)}`)
  }

  /** Tells people what the machine waits for, once. */
  #tell(why: string): void {
    const { host, facts, report } = this.#options
    if (why === this.#told) return
    this.#told = why
    report({ type: 'waiting', name: facts.name, code: keyCode(host.peerId), why: why.replaceAll(/\p{C}/gu, '?') })
  }

  async #pause(ms: number): Promise<void> {
    const { signal, facts, host } = this.#options
    const [least, most] = ENROL_AGAIN_BOUNDS_MS
    const left = this.#until - performance.now()
    if (left <= 0) {
      const { fault } = this.#finder
      const who = `${facts.name}, code ${keyCode(host.peerId)}`
      if (this.#waits && fault === undefined) throw new MeshError('NOT_APPROVED', `${who}, is not approved yet`)
      throw fault ?? new MeshError('PEERS_UNREACHABLE', `${who}: no master of the site was found`)
    }
    await sleep(Math.min(left, Math.max(least, Math.min(ms, most))), undefined, { signal }).catch(() => undefined)
    if (signal.aborted)
      throw new MeshError('INTERRUPTED', 'stopped before it was approved; it keeps its key and its code')
  }
}
