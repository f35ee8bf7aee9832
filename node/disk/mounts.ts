import { readdirSync, readlinkSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { type DiskLayers, identityAt, type KernelPaths, sharesBytes } from './disk-layers.ts'
import { processName } from './process-name.ts'
import { attempt, unlessLimit } from './system-limit.ts'

/** A file system that is mounted, or swap space, on a disk or on what shares its bytes with it. */
export interface Mounted {
  /** Such as `is mounted read-write on /mnt`. */
  readonly what: string
  /** False: only reads, as somebody who mounted it read-only does. */
  readonly writes: boolean
}

/**
 * Mounts of a disk, in this mount namespace and in those of other processes as far as they can be read.
 * `undefined` if this process cannot read its own: /proc is not mounted. Format: proc_pid_mountinfo(5), mount_namespaces(7).
 */
export async function mountsOf(layers: DiskLayers, kernel: KernelPaths): Promise<Mounted[] | undefined> {
  const own = await readFile(`${kernel.proc}/self/mountinfo`, 'utf8').catch(absent)
  if (own === undefined) return undefined
  const here = await mountsIn(own, layers)
  // Mounts that were seen here are there, too, in most namespaces.
  const known = new Set(here.map(({ what }) => what))
  const elsewhere: Mounted[] = []
  const seen = new Set([namespaceOf('self', kernel)])
  for (const pid of attempt(() => readdirSync(kernel.proc)) ?? []) {
    if (!/^\d+$/.test(pid)) continue
    const namespace = namespaceOf(pid, kernel)
    if (namespace === undefined || seen.has(namespace)) continue
    const text = await readFile(`${kernel.proc}/${pid}/mountinfo`, 'utf8').catch(absent)
    if (text === undefined) continue
    seen.add(namespace)
    for (const { what, writes } of await mountsIn(text, layers)) {
      if (known.has(what)) continue
      known.add(what)
      elsewhere.push({ what: `${what} in the mount namespace of ${await processName(pid, kernel.proc)}`, writes })
    }
  }
  return [...here, ...elsewhere]
}

/** Lines are `id parent major:minor root point … - type source options`. */
async function mountsIn(text: string, layers: DiskLayers): Promise<Mounted[]> {
  const mounts: Mounted[] = []
  for (const line of text.split('\n')) {
    const [mount, fileSystem] = line.split(' - ')
    const [, , number, , point] = mount!.split(' ')
    const [, source, options] = fileSystem?.split(' ') ?? []
    if (number === undefined || point === undefined || source === undefined || options === undefined) continue
    // Btrfs mounts have device numbers of their own, so their source is looked at.
    const isOn = sharesBytes(layers, { device: number })
    const bySource = isOn || !source.startsWith('/dev/') ? undefined : await identityAt(unescapeOctal(source))
    if (!isOn && !(bySource?.device !== undefined && sharesBytes(layers, bySource))) continue
    // The options of the file system count, not those of the mount: a read-only view may belong to a file system that
    // is mounted read-write elsewhere.
    const writes = options.split(',').includes('rw')
    mounts.push({ what: `is mounted ${writes ? 'read-write' : 'read-only'} on ${unescapeOctal(point)}`, writes })
  }
  return mounts
}

/** Swap space on a disk, or in the file itself. Format: proc_swaps(5). */
export async function swapsOn(layers: DiskLayers, kernel: KernelPaths): Promise<Mounted[]> {
  const swaps: Mounted[] = []
  // A kernel without swap has no such file.
  const text = (await readFile(`${kernel.proc}/swaps`, 'utf8').catch(absent)) ?? ''
  for (const line of text.split('\n').slice(1)) {
    const source = unescapeOctal(line.split(/\s/)[0] ?? '')
    if (source === '' || !sharesBytes(layers, await identityAt(source))) continue
    swaps.push({ what: `is in use as swap space (\`swapoff ${source}\` ends that)`, writes: true })
  }
  return swaps
}

/** The kernel writes blanks in paths as `\040`. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}

/** Which mount namespace a process is in. Hundreds of processes are asked; a thread for each question would cost more than the answer. */
function namespaceOf(pid: string, { proc }: KernelPaths): string | undefined {
  return attempt(() => readlinkSync(`${proc}/${pid}/ns/mnt`))
}

/** Processes and devices come and go while this code looks. */
const absent = unlessLimit(undefined)
