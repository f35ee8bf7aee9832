import { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf, toHex } from '../../../protocol/digest.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { findName } from '../../../protocol/names.ts'
import type { MachineState } from '../../../protocol/operate-messages.ts'
import type { SignedDocument } from '../../../protocol/signed-document.ts'
import type { Fleet, Seen, Stored } from '../../roll/fleet.ts'
import type { ReceiptSummary } from '../../roll/receipt-summary.ts'
import { brief, parseRoll, type Roll } from '../../roll/roll.ts'
import type { RollReport } from '../../roll/roll-report.ts'
import type { Refusal, Sight } from '../../roll/roll-step.ts'
import { wake } from '../../roll/wake.ts'
import type { Member } from '../../trust/members.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { Operator } from '../operate/operator.ts'
import { ROLL_MEMBERS_MS } from './limits.ts'
import { RollFile } from './roll-file.ts'
import { RollReceipts } from './roll-receipts.ts'

/** The machines of a site, as the operator of a roll reaches them through {@link Operator}. */
export class MeshFleet implements Fleet {
  readonly #operator: Operator
  readonly #warn: (text: string) => void
  readonly #receipts: RollReceipts
  #members: readonly Member[] = []
  #membersAt = Number.NEGATIVE_INFINITY
  /** What each machine held when it was last up. */
  readonly #held = new Map<string, Bitmap>()

  constructor(operator: Operator, warn: (text: string) => void) {
    this.#operator = operator
    this.#warn = warn
    this.#receipts = new RollReceipts(operator)
  }

  /** This machine. */
  get self(): { readonly id: string; readonly name: string } {
    return this.#operator.self
  }

  /** The group as its machines have it: `Lab-A` means `lab-a` if there is one. A name that no machine has stays as it is. */
  async groupNamed(name: string): Promise<string> {
    return findName(await this.#allMembers(), name, ({ group }) => group)?.group ?? name
  }

  /** The machines that a roll of the group resets: not the master, nor operators'. Errors: GROUP_UNKNOWN. */
  async machinesOf(group: string): Promise<Member[]> {
    const machines = (await this.#allMembers()).filter((one) => one.group === group && one.role === 'machine')
    if (machines.length === 0) throw new MeshError('GROUP_UNKNOWN', `no machine of this site is in group ${group}`)
    return machines.toSorted((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }))
  }

  /**
   * The release a roll is to bring the group to: of the image named, or of the one that its machines have; the newest one
   * if no release is named. Errors: IMAGE_UNKNOWN, USAGE if the machines have several images.
   */
  async target(group: string, image?: string, release?: number): Promise<VerifiedManifest> {
    if (image !== undefined) return this.#operator.manifest(image, release)
    const states = await this.#states(await this.machinesOf(group))
    const images = new Set([...states.values()].flatMap(({ disk }) => (disk === null ? [] : [disk.image])))
    if (images.size > 1)
      throw new MeshError(
        'USAGE',
        `the machines of group ${group} have ${[...images].join(', ')}: name one with --image`,
      )
    return this.#operator.manifest([...images][0], release)
  }

  /** What the machines of a roll are at, and what those near them hold of its release. */
  async look({ group, image, release }: Pick<Roll, 'group' | 'image' | 'release'>): Promise<Seen> {
    const manifest = this.#operator.manifest(image, release)
    const root = toHex(manifest.root)
    const members = await this.#allMembers()
    const machines = members.filter((one) => one.group === group && one.role === 'machine')
    const [states, rolls, holders] = await Promise.all([
      this.#states(machines),
      this.rolls(group),
      this.#operator.holders(root),
    ])
    await this.#receipts.update(states)
    const blocks = Math.ceil(manifest.size / manifest.blockSize)
    for (const id of states.keys()) this.#held.set(id, new Bitmap(blocks))
    for (const { id, held } of holders) if (held.length === blocks) this.#held.set(id, held)
    const heldBy = ({ id }: Member): Bitmap => this.#held.get(id) ?? new Bitmap(blocks)
    const own = (member: Member): Sight => {
      const state = states.get(member.id)
      const held = heldBy(member)
      const sight = sightOf(member.id, state, image, this.#receipts.seen(member.id))
      return { ...sight, held, told: told(state, root, held), canWake: canWake(member) }
    }
    const connected = new Set(holders.map(({ id }) => id))
    const other = (member: Member): Sight => {
      const sight = sightOf(member.id, undefined, image, this.#receipts.seen(member.id))
      return { ...sight, up: connected.has(member.id), held: heldBy(member), told: true, canWake: canWake(member) }
    }
    // Others near the group hold blocks, too; those of other sites are behind an uplink.
    const sites = new Set(machines.map(({ site }) => site))
    const isNear = (member: Member): boolean => sites.has(member.site) && heldBy(member).count > 0
    const sights = members.flatMap((member) => {
      if (machines.includes(member)) return [own(member)]
      return isNear(member) ? [other(member)] : []
    })
    return { sights, blocks, rolls }
  }

  /** The rolls of a group that its machines and this one know of. */
  async rolls(group: string): Promise<Roll[]> {
    const ids = (await this.machinesOf(group)).map(({ id }) => id)
    const answers = await this.#operator.ask(ids, { op: 'roll-get', group })
    const kept = await new RollFile(this.#operator.directory, group).read()
    return [
      ...answers.flatMap((answer) => ('reply' in answer ? this.#read(answer.reply.document, group) : [])),
      ...(kept === undefined ? [] : [kept.roll]),
    ]
  }

  /** Keeps a roll here, and gives it, signed, to the machines of its group. */
  async store(roll: Roll): Promise<Stored> {
    await new RollFile(this.#operator.directory, roll.group).write({ roll })
    const { group, epoch, sequence } = roll
    const document = await this.#operator.signRoll({ group, roll: roll.roll, epoch, sequence, body: roll })
    const ids = (await this.machinesOf(group)).map(({ id }) => id)
    const answers = await this.#operator.ask(ids, { op: 'roll-put', document })
    const replies = answers.flatMap((answer) => ('reply' in answer ? [answer.reply] : []))
    const refused = answers.filter((answer) => 'error' in answer && !isAway(answer.error)).length
    return {
      up: replies.length + refused,
      accepted: replies.filter(({ accepted }) => accepted).length,
      instead: replies.flatMap(({ accepted, document: other }) => (accepted ? [] : this.#read(other, group))),
    }
  }

  /** Tells a machine to reset. Undefined if it will, or does not answer. Errors: ROLL_SUPERSEDED. */
  async reset(roll: Roll, id: string, warningSeconds: number): Promise<Refusal | undefined> {
    const { evenInUse } = roll.rules
    const order = { op: 'reset', roll: roll.roll, epoch: roll.epoch, warningSeconds, evenInUse } as const
    const [answer] = await this.#operator.ask([id], order)
    if (answer === undefined || 'reply' in answer || isAway(answer.error)) return undefined
    const { code, message } = answer.error
    if (code === 'ROLL_SUPERSEDED') throw answer.error
    return { why: brief(message), forGood: code !== 'MACHINE_IN_USE' }
  }

  /** Powers a machine on, if its network card can be told to. */
  async wake(id: string): Promise<void> {
    const member = this.#members.find((one) => one.id === id)
    await wake(member?.mac ?? []).catch((error: Error) =>
      this.#warn(`${member?.name ?? id} could not be told to power on: ${error.message}`),
    )
  }

  /** The receipts that a roll's document names, by machine: fetched from those that are up, if they are not known yet. */
  async receipts(roll: Roll): Promise<Map<string, ReceiptSummary>> {
    return this.#receipts.of(roll)
  }

  /** Keeps the report of a roll on this machine. */
  async keep(roll: Roll, report: RollReport): Promise<void> {
    await new RollFile(this.#operator.directory, roll.group).write({ roll, report })
  }

  async #states(machines: readonly Member[]): Promise<Map<string, MachineState>> {
    const answers = await this.#operator.ask(
      machines.map(({ id }) => id),
      { op: 'state' },
    )
    return new Map(answers.flatMap((answer) => ('reply' in answer ? [[answer.id, answer.reply]] : [])))
  }

  async #allMembers(): Promise<readonly Member[]> {
    const now = performance.now()
    if (now - this.#membersAt > ROLL_MEMBERS_MS) {
      this.#members = await this.#operator.everyone()
      this.#membersAt = now
    }
    return this.#members
  }

  #read(signed: SignedDocument | null, group: string): Roll[] {
    const document = signed === null ? undefined : this.#operator.readRoll(signed)
    if (document === undefined) return []
    try {
      const roll = parseRoll(document.body)
      const isWhole = roll.roll === document.roll && roll.epoch === document.epoch && roll.group === group
      return isWhole && roll.sequence === document.sequence ? [roll] : []
    } catch (error) {
      if (!isMeshError(error, 'PROTOCOL_VIOLATION')) throw error
      return []
    }
  }
}

/** What is known of a machine from its own answer; undefined: it gave none. */
function sightOf(
  id: string,
  state: MachineState | undefined,
  image: string,
  receipt: Sight['receipt'] | undefined,
): Omit<Sight, 'held' | 'told' | 'canWake'> {
  if (state === undefined) return { id, up: false, process: '', inUse: false, image: '', newest: 0 }
  const { disk, newest, bootId, startedAt, inUse } = state
  return {
    id,
    up: true,
    // Which process it is, not more: the document has to stay small.
    process: toHex(digestOf(Buffer.from(`${bootId} ${startedAt}`))).slice(0, 16),
    inUse,
    // One that was never restored says only that it has an image.
    image: disk?.image ?? (newest === null ? '' : image),
    newest: newest ?? 0,
    ...(receipt === undefined ? {} : { receipt }),
  }
}

/** One that has the whole release holds blocks of it, and if none of them are known, just has not said so yet. */
function told(state: MachineState | undefined, root: string, held: Bitmap): boolean {
  const disk = state?.disk
  return held.count > 0 || disk == null || disk.root !== root || !disk.whole
}

/** Whether a machine has a network card that can be told to power it on. */
function canWake({ mac }: Member): boolean {
  return mac.length > 0
}

/** It could not be asked; everything else is an answer. */
function isAway({ code }: MeshError): boolean {
  return code === 'PEERS_UNREACHABLE' || code === 'REQUEST_TIMEOUT' || code === 'INTERRUPTED'
}
