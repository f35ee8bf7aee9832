import { mkdir, readdir, readFile, realpath, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { factsPath, slotPath } from '../../../protocol/agent-slots.ts'
import { toHex } from '../../../protocol/digest.ts'
import { BIOS_LABEL, ESP_LABEL } from '../../../protocol/disk-layout.ts'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { fsyncDirectory, writeFileAtomic } from '../../state/atomic-file.ts'
import { readStored } from '../../state/stored-document.ts'
import { siteLayout } from '../../trust/site-layout.ts'
import type { TrustView } from '../../trust/trusted-view.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { ownDisk } from '../machine/own-disk.ts'
import { fetchImage } from '../restore/fetch-image.ts'
import { canStartOnce, type StartDisk, startAlways, startedSlot, startOnce } from './agent-start.ts'
import { isKept, judgeTrial, type KeptAgent } from './agent-trial.ts'
import { runBootTool } from './boot-tool.ts'
import type { EspPlace } from './firmware.ts'
import { grubFacts } from './grub-facts.ts'
import { AGENT_TRIES } from './limits.ts'

/** Options of {@link keepAgent}. */
export interface KeepAgentOptions extends AgentOptions {
  /** What the site says, as a restore has just proven it. Without it all of that is proven again. */
  readonly view?: TrustView | undefined
  /** Where the EFI system partition is mounted meanwhile. */
  readonly place: string
  readonly bringUp: () => Promise<void>
  /** How long to wait for others that hold it, in milliseconds. */
  readonly waitMs: number
  /** Called if there is something to fetch. */
  readonly fetching: () => void
}

/**
 * Puts the newest agent of the site on the EFI system partition, if the layout of the site names one and it is not there yet. The first
 * one is started from then on, also where firmware looks by itself. A later one goes into the slot that is not in use, and is tried once. If
 * the next start comes from it, and comes as far as this, it stays; if that start comes from the old slot, the new one is tried again,
 * {@link AGENT_TRIES} times in all, and then left alone, as one is that is no agent. Returns what is there now; undefined if the site has none. Errors: those of {@link fetchImage},
 * BOOT_ENTRY_FAILED, BOOT_ESP_MISSING; after any of them the machine is started as it was before.
 */
export async function keepAgent(options: KeepAgentOptions): Promise<KeptAgent | undefined> {
  const { stateDir, configured } = options
  const view = options.view ?? (await Machine.look(stateDir)).trust.view()
  if (view.layout === undefined) return undefined
  const { agent: image } = siteLayout(view)
  const newest = image === undefined ? undefined : view.newest(image)
  if (image === undefined || newest === undefined) return undefined
  const keeper = new Keeper(options, await ownDisk(stateDir, configured))
  const root = toHex(newest.root)
  const before = await keeper.settled(root)
  if (before?.image === image && [before.root, before.tried?.root, before.failed].includes(root)) return before
  options.fetching()
  return keeper.fetch(image, before)
}

class Keeper {
  readonly #options: KeepAgentOptions
  readonly #system: string
  readonly #file: string

  constructor(options: KeepAgentOptions, system: string) {
    this.#options = options
    this.#system = system
    this.#file = join(options.stateDir, 'agent.json')
  }

  /** What is kept, after it is known what became of one that was tried. `newest`: root of the agent that the site wants. */
  async settled(newest: string): Promise<KeptAgent | undefined> {
    const before = await readKept(this.#file)
    if (before?.tried === undefined) return before
    const { tried } = before
    const { became, kept } = judgeTrial({ ...before, tried }, await startedSlot(), newest)
    const of = `the new agent, release ${tried.release},`
    if (became === 'unknown') return kept
    if (became === 'kept') await this.#onEsp((disk) => startAlways(tried.slot, disk))
    if (became === 'failed')
      this.#warn(`${of} did not start the machine ${AGENT_TRIES} times; the one of release ${before.release} goes on`)
    // Counted before it is tried: a power cut between the two costs a try, and never makes one more.
    await this.#keep(kept)
    if (became !== 'again') return kept
    this.#warn(`${of} did not come to its end, for which a power cut is enough; it is tried again`)
    await this.#onEsp((disk) => startOnce(tried.slot, before.slot, disk))
    return kept
  }

  /** Fetches the newest agent into the slot that is not in use. */
  async fetch(image: string, before: KeptAgent | undefined): Promise<KeptAgent> {
    const inUse = before?.slot ?? (await startedSlot())
    return this.#onEsp(async (disk) => {
      const slot = inUse === 'a' ? 'b' : 'a'
      const path = join(disk.folder, slotPath(slot))
      await mkdir(dirname(path), { recursive: true })
      const { release, root } = await fetchImage({ ...this.#options, image, target: `${path}.new` })
      const fetched = { slot, release, root: toHex(root) } as const
      const facts = await grubFacts(`${path}.new`)
      if (facts === undefined) {
        await rm(`${path}.new`)
        const text = `release ${release} of image ${image} is no agent: mesh boot build makes agent.efi`
        if (before === undefined) throw new MeshError('BOOT_ENTRY_FAILED', text)
        this.#warn(text)
        return this.#keep({ ...before, failed: fetched.root })
      }
      await rename(`${path}.new`, path)
      await fsyncDirectory(dirname(path))
      await writeFileAtomic(join(disk.folder, factsPath(slot)), facts)
      if (before !== undefined && (await canStartOnce(disk))) {
        // Named before it is tried: else a start from this slot would find that nobody has asked for it.
        const kept = await this.#keep({ ...before, tried: fetched })
        await startOnce(slot, before.slot, disk)
        return kept
      }
      await startAlways(slot, disk)
      return this.#keep({ ...fetched, image })
    })
  }

  #warn(text: string): void {
    this.#options.report({ type: 'warning', text })
  }

  async #keep(kept: KeptAgent): Promise<KeptAgent> {
    await writeFileAtomic(this.#file, JSON.stringify(kept))
    return kept
  }

  async #onEsp<T>(work: (disk: StartDisk) => Promise<T>): Promise<T> {
    const { place: folder } = this.#options
    const esp = await partitionBeside(this.#system, ESP_LABEL)
    if (esp === undefined)
      throw new MeshError('BOOT_ESP_MISSING', `there is no partition ${ESP_LABEL} beside ${this.#system}`)
    const hasBiosLoader = (await partitionBeside(this.#system, BIOS_LABEL)) !== undefined
    await mkdir(folder, { recursive: true })
    await runBootTool('mount', ['-t', 'vfat', '-o', 'umask=077', esp.node, folder], 'BOOT_ESP_MISSING')
    try {
      return await work({ folder, esp, hasBiosLoader })
    } finally {
      await runBootTool('umount', [folder])
    }
  }
}

async function readKept(file: string): Promise<KeptAgent | undefined> {
  const json = await readFile(file).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  })
  return json === undefined ? undefined : readStored(file, isKept, json)
}

/** The partition with this name beside the partition of the system; undefined if there is none. */
export async function partitionBeside(
  system: string,
  label: string,
  sys = '/sys',
): Promise<(EspPlace & { readonly node: string }) | undefined> {
  const own = join(sys, 'class/block', basename(system))
  const folder = dirname(await realpath(own).catch(() => own))
  for (const name of await readdir(folder).catch(() => [])) {
    const facts = await readFile(join(folder, name, 'uevent'), 'utf8').catch(() => '')
    if (!facts.split('\n').includes(`PARTNAME=${label}`)) continue
    const number = Number(/^PARTN=(\d+)$/m.exec(facts)?.[1])
    return { node: `/dev/${name}`, disk: `/dev/${basename(folder)}`, number }
  }
  return undefined
}
