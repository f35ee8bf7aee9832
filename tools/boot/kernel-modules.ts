import { access, readdir, readFile } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'
import { MeshError } from '../../protocol/errors.ts'
import { runBuildTool } from './build-tool.ts'
import type { FileTree } from './file-tree.ts'

/**
 * Modules that the agent’s scripts load by name, without modprobe: it reads all its lists each time, which takes longer than loading.
 */
const QUICK_MODULES = [
  'ext4',
  'crc32c_generic',
  'loop',
  'dm_era',
  'virtio_pci',
  'virtio_blk',
  'virtio_scsi',
  'sd_mod',
  'nvme',
  'ahci',
]

/** Drivers that the agent holds, by what they are for. Each brings the modules that it needs. */
export const AGENT_MODULES = {
  /** Disks: NVMe (also behind Intel’s VMD), SATA, virtual ones, USB, SD cards and eMMC. */
  disks: [
    ...[
      'nvme',
      'vmd',
      'ahci',
      'ata_piix',
      'sd_mod',
      'virtio_pci',
      'virtio_blk',
      'virtio_scsi',
      'vmw_pvscsi',
      'hv_storvsc',
    ],
    ...['usb-storage', 'uas', 'sdhci-pci', 'sdhci-acpi', 'mmc_block', 'rtsx_pci', 'rtsx_pci_sdmmc', 'rtsx_usb_sdmmc'],
  ],
  /** USB controllers and keyboards. */
  usb: ['xhci-pci', 'ehci-pci', 'ohci-pci', 'uhci-hcd', 'usbhid', 'hid-generic'],
  /** Network cards: Intel, Realtek, Broadcom, Aquantia, Atheros, Marvell, virtual ones, and USB adapters. */
  network: [
    ...[
      'e1000',
      'e1000e',
      'igb',
      'igc',
      'r8169',
      'realtek',
      '8139too',
      'tg3',
      'broadcom',
      'bnx2',
      'atlantic',
      'alx',
      'atl1c',
      'sky2',
    ],
    ...['virtio_net', 'vmxnet3', 'hv_netvsc', 'r8152', 'ax88179_178a', 'asix', 'cdc_ether', 'cdc_ncm'],
  ],
  /** What the state partition and the model’s root are made of, and the write log. */
  files: ['ext4', 'xfs', 'btrfs', 'vfat', 'nls_cp437', 'nls_ascii', 'efivarfs', 'loop', 'dm-mod', 'dm-era'],
  /** Checksums that file systems ask for by name while they are mounted; no module depends on them. */
  checksums: ['crc32c_generic', 'crc32c-intel', 'crc32_generic', 'xxhash_generic', 'blake2b_generic', 'sha256_generic'],
} as const

interface Module {
  readonly name: string
  /** Below the folder of the kernel's version. */
  readonly path: string
  readonly content: Buffer
  /** `depends`, `alias`, `softdep` and others, as the module itself says them. */
  readonly says: ReadonlyMap<string, readonly string[]>
}

/** Modules, a kernel's version, and what is built into that kernel. */
interface ModuleFolder {
  readonly version: string
  /** Path of each module's file, by its name with underscores. */
  readonly files: ReadonlyMap<string, string>
  readonly builtIn: ReadonlySet<string>
}

const plain = (name: string): string => name.replaceAll('-', '_')

/**
 * Adds modules and all that they need to a tree, with the lists by which modprobe finds them. `folder`: `…/lib/modules/VERSION`; depmod
 * need not have run there. `firmware`: where files are that modules name, or nowhere. Errors: USAGE, TOOL_MISSING.
 */
export async function addModules(
  tree: FileTree,
  { folder, names, firmware }: { folder: string; names: readonly string[]; firmware?: string },
): Promise<void> {
  const { version, files, builtIn } = await look(folder)
  const place = `/lib/modules/${version}`
  const modules = new Map<string, Module>()
  const take = async (name: string, isWanted: boolean): Promise<void> => {
    if (modules.has(plain(name)) || builtIn.has(plain(name))) return
    const file = files.get(plain(name))
    // Kernels differ in what they have; what a module needs, they have.
    if (file === undefined && isWanted) return
    if (file === undefined) throw new MeshError('USAGE', `${folder} has no module ${name}, which another one needs`)
    const module = await readModule(folder, file)
    modules.set(plain(name), module)
    for (const other of listOf(module, 'depends')) await take(other, false)
    for (const other of softOf(module)) await take(other, true)
  }
  for (const name of names) await take(name, true)
  if (!modules.has('ext4') && !builtIn.has('ext4'))
    throw new MeshError('USAGE', `${folder} is not the folder of a kernel’s modules: it has no ext4`)
  for (const { path, content } of modules.values()) tree.write(`${place}/${path}`, content)
  for (const name of QUICK_MODULES) {
    const module = modules.get(name)
    const order = module === undefined ? [] : [module.path, ...needsOf(module, modules)].toReversed()
    tree.write(`/lib/mesh/order/${name}`, order.map((path) => `${place}/${path}\n`).join(''))
  }
  for (const [name, lines] of Object.entries(lists(modules))) tree.write(`${place}/${name}`, lines.join(''))
  if (firmware !== undefined) await addFirmware(tree, [...modules.values()], firmware)
}

async function look(folder: string): Promise<ModuleFolder> {
  const entries = await readdir(join(folder, 'kernel'), { recursive: true }).catch(() => {
    throw new MeshError('USAGE', `${folder} is not the folder of a kernel’s modules: it has no folder kernel`)
  })
  const named = entries.filter((path) => /\.ko(\.xz|\.zst)?$/.test(path))
  const files = new Map(named.map((path) => [plain(basename(path).replace(/\.ko.*/, '')), join('kernel', path)]))
  const text = await readFile(join(folder, 'modules.builtin'), 'utf8').catch(() => '')
  const builtIn = new Set([...text.matchAll(/([^/\n]+)\.ko/g)].map(([, name]) => plain(name!)))
  return { version: basename(folder), files, builtIn }
}

/** Modules stand unpacked in the archive, which is packed as a whole; their signatures are of that form. */
async function readModule(folder: string, path: string): Promise<Module> {
  const file = join(folder, path)
  const packed = path.endsWith('.xz') ? await runBuildTool('xz', ['-dc', file]) : await readFile(file)
  const content = path.endsWith('.zst') ? zstdDecompressSync(packed) : packed
  const says = new Map<string, string[]>()
  for (const line of sectionOf(content, '.modinfo').toString('utf8').split('\0')) {
    const at = line.indexOf('=')
    if (at === -1) continue
    says.set(line.slice(0, at), [...(says.get(line.slice(0, at)) ?? []), line.slice(at + 1)])
  }
  const unpacked = relative(folder, file).replace(/\.ko.*/, '.ko')
  return { name: plain(basename(unpacked, '.ko')), path: unpacked, content, says }
}

/** The bytes of a section of an ELF file of 64 bits (elf(5)); empty if it has none of that name. */
function sectionOf(elf: Buffer, name: string): Buffer {
  const table = Number(elf.readBigUInt64LE(0x28))
  const [size, count, names] = [0x3a, 0x3c, 0x3e].map((at) => elf.readUInt16LE(at)) as [number, number, number]
  const section = (index: number): { nameAt: number; bytes: Buffer } => {
    const at = table + index * size
    const [offset, length] = [Number(elf.readBigUInt64LE(at + 0x18)), Number(elf.readBigUInt64LE(at + 0x20))]
    return { nameAt: elf.readUInt32LE(at), bytes: elf.subarray(offset, offset + length) }
  }
  const texts = section(names).bytes
  for (let index = 0; index < count; index++) {
    const { nameAt, bytes } = section(index)
    if (texts.toString('latin1', nameAt, texts.indexOf(0, nameAt)) === name) return bytes
  }
  return Buffer.alloc(0)
}

const listOf = ({ says }: Module, key: string): string[] =>
  (says.get(key) ?? []).flatMap((value) => value.split(',')).filter((value) => value !== '')

/** `softdep=pre: a b post: c`. */
const softOf = ({ says }: Module): string[] =>
  (says.get('softdep') ?? [])
    .flatMap((value) => value.split(/\s+/))
    .filter((word) => word !== '' && !word.endsWith(':'))

/** What a module needs. It can be loaded from the last to the first: each stands before those that it needs itself. */
function needsOf(module: Module, modules: ReadonlyMap<string, Module>, found: string[] = []): string[] {
  for (const name of listOf(module, 'depends')) {
    const other = modules.get(plain(name))
    if (other === undefined || found.includes(other.path)) continue
    needsOf(other, modules, found)
    found.unshift(other.path)
  }
  return found
}

/** What depmod would write of these modules, as modprobe of busybox reads it. */
function lists(modules: ReadonlyMap<string, Module>): Record<string, string[]> {
  const sorted = [...modules.values()].toSorted((a, b) => (a.path < b.path ? -1 : 1))
  return {
    'modules.dep': sorted.map(
      (module) =>
        `${module.path}:${needsOf(module, modules)
          .map((path) => ` ${path}`)
          .join('')}\n`,
    ),
    'modules.alias': sorted.flatMap((one) =>
      (one.says.get('alias') ?? []).map((alias) => `alias ${alias} ${one.name}\n`),
    ),
    'modules.softdep': sorted.flatMap((one) =>
      (one.says.get('softdep') ?? []).map((text) => `softdep ${one.name} ${text}\n`),
    ),
  }
}

async function addFirmware(tree: FileTree, modules: readonly Module[], firmware: string): Promise<void> {
  for (const name of modules.flatMap((module) => module.says.get('firmware') ?? [])) {
    const isThere = await access(join(firmware, name)).then(
      () => true,
      () => false,
    )
    if (isThere) await tree.copy(`/lib/firmware/${name}`, join(firmware, name))
  }
}
