import { randomUUID } from 'node:crypto'
import { access, readFile, realpath, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { MAX_LAYOUT_PARTITIONS, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { ESP_LABEL, LAYOUT_UNIT_BYTES } from '../../../protocol/disk-layout.ts'
import { errnoOf, isMeshError } from '../../../protocol/errors.ts'
import { anyText, list, natural, object, optional, type Shaped, text, truth } from '../../../protocol/json-shape.ts'
import { byteOffset } from '../../../protocol/units.ts'
import { blkidType } from '../../disk/blkid.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import { changePlan, type LayoutChange } from '../../disk/change-plan.ts'
import { changeTable } from '../../disk/change-table.ts'
import { deviceNumber } from '../../disk/device-number.ts'
import { readerOf } from '../../disk/disk-content.ts'
import { openDevice } from '../../disk/file-device.ts'
import { fileSystemOf, MAGIC_BYTES } from '../../disk/file-system-magic.ts'
import { readPlan } from '../../disk/gpt-table.ts'
import type { DiskPlan, PlannedPartition } from '../../disk/plan-disk.ts'
import { readDisk } from '../../disk/read-disk.ts'
import { writeFileAtomic } from '../../state/atomic-file.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import { readStored } from '../../state/stored-document.ts'
import { assertImagesFit, siteLayout } from '../../trust/site-layout.ts'
import { recordLogDoubt } from '../log/log-doubt.ts'
import type { AgentEvent } from '../machine/events.ts'
import { Machine } from '../machine/machine.ts'
import { partDirectories, partDirectory } from '../machine/parts.ts'
import { rememberedMachine } from '../machine/remembered-machine.ts'
import { settleParts, type TargetPartition } from '../mesh/settle.ts'
import { partitionNode } from './lay-out-disk.ts'
import { LAYOUT_TRIES } from './limits.ts'

const partition = { number: natural(), offset: natural(), size: natural(), uuid: text(MAX_TEXT_BYTES) }
const followedShape = {
  /** The generation of the trusted metadata by which the disk was compared last. */
  metadata: text(MAX_TEXT_BYTES),
  /** Why the disk does not follow the layout of that generation. */
  refused: optional(anyText(64 * 1024)),
  /** The table that is written next, or was: of the partitions that are for images. */
  next: optional(
    list(
      object({ ...partition, image: optional(text(MAX_TEXT_BYTES)), system: optional(truth) }),
      MAX_LAYOUT_PARTITIONS + 128,
    ),
  ),
  /** How often it was tried. */
  tries: optional(natural()),
}
const isFollowed = object(followedShape)
type Followed = Shaped<typeof followedShape>

interface FollowOptions {
  readonly stateDir: string
  readonly report: (event: AgentEvent) => void
}

/**
 * Lets the disk of a machine follow a layout that the site has signed since, before anything is restored or mounted but the state. The table
 * changes by one write of its header (docs/DURABILITY.md), and true is returned: the computer has to be started again. What would lose data of
 * partitions that are not restored is refused, told, and kept for `mesh layout show`; the machine goes on as it was. Errors: those of the
 * state directory and of the disk.
 */
export async function followLayout({ stateDir, report }: FollowOptions): Promise<boolean> {
  const metadata = (await readFile(join(stateDir, 'trust/CURRENT'), 'utf8').catch(() => '')).trim()
  const before = await readFollowed(stateDir)
  if (before?.next === undefined && before?.metadata === metadata) {
    if (before.refused !== undefined) tellRefused(before.refused, report)
    return false
  }
  const disk = await LaidOutDisk.open(stateDir)
  // Prepared by hand, or not on a disk with partitions.
  if (disk === undefined) return false
  try {
    if (before?.next !== undefined && disk.is(before.next)) {
      await settleChange(stateDir, disk, before.next)
      await keep(stateDir, { metadata: '' })
      return followLayout({ stateDir, report })
    }
    return await disk.follow(await Machine.look(stateDir), { metadata, tries: before?.tries ?? 0 }, report)
  } finally {
    await disk.close()
  }
}

/** Why the disk of this machine does not follow the layout; undefined if it does, or nobody has compared it. Errors: those of the file. */
export async function layoutRefusal(stateDir: string): Promise<string | undefined> {
  return (await readFollowed(stateDir))?.refused
}

/** A disk with a table that the mesh has written. */
class LaidOutDisk {
  readonly #stateDir: string
  readonly #device: BlockDevice
  readonly #plan: DiskPlan
  readonly #place: 0 | 1

  private constructor(
    stateDir: string,
    device: BlockDevice,
    found: { readonly plan: DiskPlan; readonly place: 0 | 1 },
  ) {
    this.#stateDir = stateDir
    this.#device = device
    this.#plan = found.plan
    this.#place = found.place
  }

  /** Undefined if the state is on no partition of such a disk. */
  static async open(stateDir: string): Promise<LaidOutDisk | undefined> {
    const whole = await diskBelow(stateDir)
    if (whole === undefined) return undefined
    const device = await openDevice(whole, { writable: true })
    const sectorBytes = device.sectorSize ?? 512
    const images = await imagesOf(stateDir)
    const found = await readPlan(readerOf(device), { size: device.size, sectorBytes }, images)
    if (found?.plan.partitions.some(({ label }) => label === ESP_LABEL)) return new LaidOutDisk(stateDir, device, found)
    await device.close()
    return undefined
  }

  get path(): string {
    return this.#device.path
  }

  /** Whether the table has these partitions, and no others. */
  is(next: NonNullable<Followed['next']>): boolean {
    const key = ({ number, offset, size, uuid }: (typeof next)[number]): string => `${number} ${offset} ${size} ${uuid}`
    return this.#plan.partitions.map(key).join() === next.map(key).join()
  }

  async follow(
    { trust }: Machine,
    { metadata, tries }: { readonly metadata: string; readonly tries: number },
    report: FollowOptions['report'],
  ): Promise<boolean> {
    const stateDir = this.#stateDir
    const view = trust.view()
    const isLaidOut = view.layout !== undefined && (await this.#hasOwn())
    const change = isLaidOut ? await this.#change(view) : undefined
    const refused =
      tries >= LAYOUT_TRIES
        ? `${this.path} does not keep a new table`
        : change && 'refused' in change
          ? change.refused
          : undefined
    if (refused !== undefined) tellRefused(refused, report)
    if (change === undefined || 'refused' in change || refused !== undefined || change.told.length === 0) {
      await keep(stateDir, { metadata, ...(refused === undefined ? {} : { refused }) })
      return false
    }
    report({ type: 'note', text: `${this.path} follows the layout of the site: ${change.told.join('; ')}` })
    const next = change.plan.partitions.map(({ number, offset, size, uuid, image, system }) => ({
      ...{ number, offset, size, uuid },
      ...(image === undefined ? {} : { image }),
      ...(system === undefined ? {} : { system }),
    }))
    await this.#blank(change)
    await keep(stateDir, { metadata, next, tries: tries + 1 })
    await changeTable(this.#device, change.plan, this.#place)
    return true
  }

  async #change(view: Parameters<typeof siteLayout>[0] & Parameters<typeof assertImagesFit>[0]) {
    try {
      const layout = siteLayout(view)
      assertImagesFit(view, layout)
      const change = changePlan(this.#plan, layout, randomUUID)
      const unknown = 'refused' in change ? undefined : await this.#unknown(change)
      return unknown === undefined ? change : { refused: unknown }
    } catch (error) {
      if (!isMeshError(error)) throw error
      return { refused: error.message }
    }
  }

  /** Whether the machine’s own partition is on this disk. Of one that was prepared by hand it may be on another. */
  async #hasOwn(): Promise<boolean> {
    const { facts } = (await rememberedMachine(this.#stateDir))?.diskIdentity ?? {}
    const own = this.#plan.partitions.find(({ number }) => String(number) === facts?.partitionNumber)
    return own !== undefined && own.uuid === facts?.partition
  }

  /** What stands where a new partition is to be, and belongs to nobody. */
  async #unknown({ plan, added }: LayoutChange): Promise<string | undefined> {
    for (const { number, label, offset, size } of plan.partitions) {
      const isFree = this.#plan.partitions.every(
        (one) => one.offset + one.size <= offset || one.offset >= offset + size,
      )
      if (!added.includes(number) || !isFree) continue
      const head = await readerOf(this.#device)(offset, MAGIC_BYTES)
      const found = fileSystemOf(head) ?? (await blkidType(this.path, { offset, size }))
      if (found !== undefined) return `where ${label} is to be, at byte ${offset} of ${this.path}, ${found} was found`
    }
    return undefined
  }

  /** So that nobody takes what stood there before for a file system. */
  async #blank({ plan, added }: LayoutChange): Promise<void> {
    for (const { number, offset, size } of plan.partitions) {
      if (!added.includes(number)) continue
      for (const at of [offset, offset + size - LAYOUT_UNIT_BYTES])
        await this.#device.write(byteOffset(at), Buffer.alloc(LAYOUT_UNIT_BYTES))
    }
    await this.#device.flush()
  }

  close(): Promise<void> {
    return this.#device.close()
  }
}

/** Writes down what the partitions of images are by the new table. Nothing is believed of their logs. */
async function settleChange(stateDir: string, disk: LaidOutDisk, next: NonNullable<Followed['next']>): Promise<void> {
  const state = await StateDirectory.open(stateDir, { create: false })
  try {
    const machine = state.machine!
    const targets: TargetPartition[] = []
    for (const { number, image, system = false } of next) {
      if (image === undefined) continue
      const path = partitionNode(disk.path, number)
      targets.push({ number, image, isSystem: system, disk: path, identity: await readDisk(path) })
    }
    const [own, ...parts] = targets
    const directories = parts.map(({ number }) => partDirectory(stateDir, number))
    for (const one of await partDirectories(stateDir))
      if (!directories.includes(one)) await rm(one, { recursive: true, force: true })
    await settleParts(state, parts)
    for (const one of directories) {
      const part = await StateDirectory.open(one, { create: false })
      await recordLogDoubt(part, NEW_LAYOUT).finally(() => part.close())
    }
    await recordLogDoubt(state, NEW_LAYOUT)
    if (own !== undefined)
      await state.saveMachine({ ...machine, image: own.image, disk: own.disk, diskIdentity: own.identity })
  } finally {
    await state.close()
  }
}

const NEW_LAYOUT = 'the disk has a new layout'

/** What the partitions of a machine are for, by their numbers. */
async function imagesOf(stateDir: string): Promise<Map<number, Pick<PlannedPartition, 'image' | 'system'>>> {
  const images = new Map<number, Pick<PlannedPartition, 'image' | 'system'>>()
  const machine = await rememberedMachine(stateDir)
  const own = Number(machine?.diskIdentity?.facts.partitionNumber)
  if (machine?.image !== undefined) images.set(own, { image: machine.image })
  for (const directory of await partDirectories(stateDir)) {
    const { image, system } = (await rememberedMachine(directory)) ?? {}
    if (image !== undefined)
      images.set(Number(basename(directory)), { image, ...(system === undefined ? {} : { system }) })
  }
  return images
}

/** The disk whose partition has the file system of a folder; undefined if it is on none. */
async function diskBelow(folder: string, sys = '/sys'): Promise<string | undefined> {
  const place = await realpath(join(sys, 'dev/block', deviceNumber((await stat(folder)).dev))).catch(() => undefined)
  if (place === undefined) return undefined
  const isPartition = await access(join(place, 'partition')).then(
    () => true,
    () => false,
  )
  return isPartition ? `/dev/${basename(dirname(place)).replaceAll('!', '/')}` : undefined
}

async function readFollowed(stateDir: string): Promise<Followed | undefined> {
  const file = join(stateDir, FILE)
  const json = await readFile(file).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  })
  return json === undefined ? undefined : readStored(file, isFollowed, json)
}

const FILE = 'layout.json'

async function keep(stateDir: string, followed: Followed): Promise<void> {
  await writeFileAtomic(join(stateDir, FILE), JSON.stringify(followed))
}

function tellRefused(why: string, report: FollowOptions['report']): void {
  report({ type: 'warning', text: `the disk stays as it is, and does not follow the new layout of the site: ${why}` })
}
