import { constants } from 'node:fs'
import { access, open, readFile, stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { kernelFilesMissing, openFault } from './device-fault.ts'
import { type DiskLayers, identityOf, type KernelPaths, layersOf } from './disk-layers.ts'
import { OPENED_PATIENCE_MS, OPENED_POLL_MS } from './limits.ts'
import { type Mounted, mountsOf, swapsOn } from './mounts.ts'
import { type DiskPurpose, openersOf } from './open-files.ts'

/** How {@link assertUnused} looks at a disk. */
interface DiskUseOptions {
  /** `write`: the disk will be changed. `read`: its content must stay as it is meanwhile. */
  readonly to: DiskPurpose
  /** This process holds the device (`alone` of openDevice). */
  readonly held?: boolean
  /** Nothing is looked at. */
  readonly force: boolean
  /** Files that only our own programs have open; a process that has one of them open is not somebody else. */
  readonly ours?: readonly string[]
  readonly kernel?: KernelPaths
}

/** Somebody who uses a disk. */
interface Use {
  readonly code: 'DISK_MOUNTED' | 'DISK_IN_USE'
  /** Such as `is mounted read-write on /mnt`. */
  readonly what: string
}

/**
 * Refuses a disk that somebody else uses: the disk itself, or what shares its bytes with it (partitions, loop devices, device mapper,
 * RAID). A use is a mount in any mount namespace, swap space, a device stacked on it, a process that has it open for writing, and a
 * virtual machine that holds the lock of QEMU.
 *
 * A disk that is mounted read-only may be read, but not written: a file system that is mounted goes on with what the kernel has read
 * of it before, and nothing but to unmount it takes that away (BLKFLSBUF empties the cache of the device, not that of the file
 * system). As soon as it is mounted read-write, it writes the old over the new.
 *
 * Returns whether one of our own programs has the disk open, and may hold it. What cannot be looked at, such as processes of other users, is passed over. Errors: DISK_MOUNTED, DISK_IN_USE, both naming the use;
 * KERNEL_FILES_MISSING, DISK_MISSING, DISK_UNREADABLE.
 */
export async function assertUnused(path: string, options: DiskUseOptions): Promise<{ readonly byOurs: boolean }> {
  if (options.force) return { byOurs: false }
  const kernel = options.kernel ?? { proc: '/proc', sys: '/sys' }
  const facts = await stat(path).catch((error: unknown) => {
    throw openFault(path, error, { writable: false })
  })
  const layers = await layersOf(identityOf(facts), kernel)
  const refuse = ({ code, what }: Use): never => {
    throw new MeshError(code, `${path} ${what}`, { detail: { path } })
  }
  const look = () => openersOf(path, layers, { to: options.to, ours: options.ours ?? [], kernel })
  const mounts = await mountsOf(layers, kernel)
  if (mounts === undefined) throw kernelFilesMissing(path, '/proc', 'whether somebody uses the disk')
  const first = await look()
  const isHeld = options.held === true || first.byOurs || first.others.length > 0
  const use = await kernelUse(path, layers, { to: options.to, mounts, isHeld, kernel })
  if (use !== undefined) refuse(use)
  const begun = performance.now()
  for (let { others, byOurs } = first; ; { others, byOurs } = await look()) {
    const [opener] = others
    if (opener === undefined) return { byOurs }
    // Programs that only look, such as smartd and LVM, have a disk open for a moment.
    if (performance.now() - begun > OPENED_PATIENCE_MS) refuse({ code: 'DISK_IN_USE', what: `is in use: ${opener}` })
    await sleep(OPENED_POLL_MS)
  }
}

/** What the kernel itself does with a disk. */
async function kernelUse(
  path: string,
  layers: DiskLayers,
  options: {
    readonly to: DiskPurpose
    readonly mounts: readonly Mounted[]
    /** A program that is known has the device open, and may hold it, so to ask for it alone tells nothing. */
    readonly isHeld: boolean
    readonly kernel: KernelPaths
  },
): Promise<Use | undefined> {
  const { to, mounts, isHeld, kernel } = options
  const mounted = mounts.find(({ writes }) => writes) ?? mounts[0]
  if (mounted?.writes === true) return { code: 'DISK_MOUNTED', what: mounted.what }
  if (mounted !== undefined && to === 'write')
    return { code: 'DISK_MOUNTED', what: `${mounted.what}; what is mounted would go on with the old content` }
  const [swap] = await swapsOn(layers, kernel)
  if (swap !== undefined) return { code: 'DISK_IN_USE', what: swap.what }
  // A device that is stacked on the disk and mounted read-only only reads.
  if (mounted !== undefined) return undefined
  const holder = await holderOf(layers, kernel)
  if (holder !== undefined) return { code: 'DISK_IN_USE', what: `is in use by ${holder}` }
  if (isHeld) return undefined
  const bases = layers.disk.device === undefined ? [...layers.above.values()].map((name) => `/dev/${name}`) : [path]
  for (const base of bases)
    if (await isClaimed(base))
      return {
        code: 'DISK_IN_USE',
        what: 'is in use by the kernel (a RAID, a volume, or a mount that cannot be seen from here)',
      }
  return undefined
}

/** The device that is stacked on a disk, and how to end that; undefined if there is none. */
async function holderOf({ disk, above }: DiskLayers, { sys }: KernelPaths): Promise<string | undefined> {
  for (const [number, name] of above) {
    if (number === disk.device) continue
    const text = (file: string): Promise<string> =>
      readFile(`${sys}/dev/block/${number}/${file}`, 'utf8').then(
        (words) => words.trim(),
        () => '',
      )
    const mapped = await text('dm/name')
    if (name.startsWith('dm-')) {
      const uuid = await text('dm/uuid')
      if (uuid.startsWith('LVM-'))
        return `the LVM volume ${mapped} (${name}); \`lvchange -an\` or \`vgchange -an\` ends that`
      if (uuid.startsWith('CRYPT-'))
        return `the encrypted volume ${mapped} (${name}); \`cryptsetup close ${mapped}\` ends that`
      return `the device-mapper device ${mapped || name} (${name}); \`dmsetup remove ${mapped || name}\` ends that`
    }
    const isRaid = await access(`${sys}/dev/block/${number}/md`).then(
      () => true,
      () => false,
    )
    if (isRaid || /^md\d/.test(name)) return `the RAID ${name}; \`mdadm --stop /dev/${name}\` ends that`
  }
  return undefined
}

/**
 * Whether the kernel holds a block device exclusively: mounted (in any mount namespace), part of a RAID or a volume,
 * swap. For a block device O_EXCL without O_CREAT asks just that (open(2)).
 */
async function isClaimed(node: string): Promise<boolean> {
  try {
    const handle = await open(node, constants.O_RDONLY | constants.O_EXCL)
    await handle.close()
    return false
  } catch (error) {
    // Any other failure is reported by whoever opens the disk.
    return errnoOf(error) === 'EBUSY'
  }
}
