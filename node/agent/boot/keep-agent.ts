import { copyFile, mkdir, open, readdir, readFile, realpath, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { ESP_LABEL } from '../../../protocol/disk-layout.ts'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { literal, natural, object, type Shaped, text } from '../../../protocol/json-shape.ts'
import { fsyncDirectory, writeFileAtomic } from '../../state/atomic-file.ts'
import { readStored } from '../../state/stored-document.ts'
import { siteLayout } from '../../trust/site-layout.ts'
import { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { fetchImage } from '../restore/fetch-image.ts'
import { makeBootEntry, slotPath } from './boot-entry.ts'
import { runBootTool } from './boot-tool.ts'

/** Which agent is on the disk: the file `agent.json` of the state directory. */
const keptShape = {
  slot: literal('a', 'b'),
  image: text(MAX_TEXT_BYTES),
  release: natural(),
  root: text(MAX_TEXT_BYTES),
}
const isKept = object(keptShape)
type KeptAgent = Shaped<typeof keptShape>

/** Options of {@link keepAgent}. */
interface KeepAgentOptions extends AgentOptions {
  /** Where the EFI system partition is mounted meanwhile. */
  readonly place: string
  readonly bringUp: () => Promise<void>
  /** How long to wait for others that hold it, in milliseconds. */
  readonly waitMs: number
  /** Called if there is something to fetch. */
  readonly fetching: () => void
}

/**
 * Puts the newest agent of the site on the EFI system partition, if the layout of the site names one and it is not there yet: into the
 * slot that is not in use, then to where firmware looks that knows of no entry, then an entry of the firmware. The slot in use stays as it is. Returns
 * what is there now; undefined if the site has none. Errors: those of {@link fetchImage}, BOOT_ENTRY_FAILED, BOOT_ESP_MISSING; the agent that was
 * there before starts the machine after any of them.
 */
export async function keepAgent(options: KeepAgentOptions): Promise<KeptAgent | undefined> {
  const { stateDir, place, bringUp, fetching } = options
  const { trust, config } = await Machine.look(stateDir)
  const view = trust.view()
  if (view.layout === undefined) return undefined
  const { agent: image } = siteLayout(view)
  const newest = image === undefined ? undefined : view.newest(image)
  if (image === undefined || newest === undefined) return undefined
  const file = join(stateDir, 'agent.json')
  const before = await readKept(file)
  if (before?.image === image && before.root === toHex(newest.root)) return before
  fetching()
  const esp = await findEsp(config.disk ?? '')
  await mkdir(place, { recursive: true })
  await runBootTool('mount', ['-t', 'vfat', '-o', 'umask=077', esp.node, place], 'BOOT_ESP_MISSING')
  try {
    const slot = before?.slot === 'a' ? 'b' : 'a'
    const path = join(place, slotPath(slot))
    await mkdir(dirname(path), { recursive: true })
    const { release, root } = await fetchImage({ ...options, image, target: `${path}.new`, bringUp })
    await rename(`${path}.new`, path)
    await fsyncDirectory(dirname(path))
    await asFallback(path, join(place, 'EFI/BOOT'))
    const kept = { slot, image, release, root: toHex(root) } as const
    await makeBootEntry(slot, esp.disk, esp.number)
    await writeFileAtomic(file, JSON.stringify(kept))
    return kept
  } finally {
    await runBootTool('umount', [place])
  }
}

async function readKept(file: string): Promise<KeptAgent | undefined> {
  const json = await readFile(file).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  })
  return json === undefined ? undefined : readStored(file, isKept, json)
}

/** Where firmware looks that has no entry: one that was reset, or a disk in another computer. */
async function asFallback(agent: string, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  const path = join(folder, 'BOOTX64.EFI')
  await copyFile(agent, `${path}.new`)
  await using copied = await open(`${path}.new`, 'r+')
  await copied.sync()
  await rename(`${path}.new`, path)
  await fsyncDirectory(folder)
}

/** The EFI system partition beside the partition of the system. Errors: BOOT_ESP_MISSING. */
export async function findEsp(
  system: string,
  sys = '/sys',
): Promise<{ readonly node: string; readonly disk: string; readonly number: number }> {
  const own = join(sys, 'class/block', basename(system))
  const folder = dirname(await realpath(own).catch(() => own))
  for (const name of await readdir(folder).catch(() => [])) {
    const facts = await readFile(join(folder, name, 'uevent'), 'utf8').catch(() => '')
    if (!facts.split('\n').includes(`PARTNAME=${ESP_LABEL}`)) continue
    const number = Number(/^PARTN=(\d+)$/m.exec(facts)?.[1])
    return { node: `/dev/${name}`, disk: `/dev/${basename(folder)}`, number }
  }
  throw new MeshError('BOOT_ESP_MISSING', `there is no partition ${ESP_LABEL} beside ${system}`)
}
